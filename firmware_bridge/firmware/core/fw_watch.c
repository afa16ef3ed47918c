/* Limit switches, following error, encoders: what makes the position doubtful. */
#include "fw_internal.h"

#define HIGH_BIT 8u

/* The limit switch at one end of an axis is in use and closed. */
bool fw_limit_closed(const fw_t *fw, uint32_t axis, bool high)
{
    uint32_t bit = high ? (HIGH_BIT + axis) : axis;
    uint32_t input = (high ? BOARD_IN_LIMIT_HIGH : BOARD_IN_LIMIT_LOW) + axis;
    return (((fw->config.limits >> bit) & 1u) != 0u) && board_input(fw->board, input);
}

static bool following_error(const fw_t *fw)
{
    return fw->config.following && board_input(fw->board, BOARD_IN_FOLLOWING);
}

/* Nothing may be armed: an axis stands on a limit switch, or a drive reports an error. */
bool fw_input_in_the_way(const fw_t *fw)
{
    bool found = following_error(fw);
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        found = found || fw_limit_closed(fw, k, false) || fw_limit_closed(fw, k, true);
    }
    return found;
}

/* Which way an axis moves now: -1, 0, 1. */
int32_t fw_direction(const fw_t *fw, uint32_t axis)
{
    int32_t v = 0;
    if (fw->jogging) {
        v = fw->jog_v[axis];
    } else if (fw_moving(fw)) {
        v = fw->queue[fw->tail & (FW_QUEUE - 1u)].d[axis];
    } else if (((fw->state == FW_HOMING) || fw->home_stop) && (fw->home_axis == axis)) {
        v = fw_home_direction(fw);
    } else {
        v = 0;
    }
    return (v > 0) ? 1 : ((v < 0) ? -1 : 0);
}

/* An axis moves towards a limit switch that is closed. */
static bool runs_into_limit(const fw_t *fw)
{
    bool hit = false;
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        int32_t way = fw_direction(fw, k);
        bool closed = (way != 0) && fw_limit_closed(fw, k, way > 0);
        /* a switch that is home and limit in one is where homing goes */
        bool home = (fw->state == FW_HOMING) && (way < 0) &&
                    board_input(fw->board, BOARD_IN_SWITCH + k);
        hit = hit || (closed && !home);
    }
    return hit;
}

/* From here on counts and position are the same. */
void fw_encoder_mark(fw_t *fw, uint32_t axis)
{
    if (fw->config.axis[axis].encoder != 0) {
        fw->encoder_zero[axis] = board_encoder(fw->board, axis);
        fw->encoder_pos[axis] = fw->pos[axis];
    }
}

/* Steps made less what the encoder counted, in steps. */
int32_t fw_encoder_lost(const fw_t *fw, uint32_t axis)
{
    int64_t ratio = fw->config.axis[axis].encoder;
    if (ratio == 0) {
        return 0;
    }
    uint32_t counts = board_encoder(fw->board, axis) - fw->encoder_zero[axis];
    int64_t moved = (counts <= (uint32_t)INT32_MAX) ? (int64_t)counts : (int64_t)counts - 4294967296;
    int64_t lost = ((int64_t)fw->pos[axis] - fw->encoder_pos[axis]) - (moved * 65536) / ratio;
    lost = (lost > INT32_MAX) ? INT32_MAX : lost;
    return (int32_t)((lost < -INT32_MAX) ? -INT32_MAX : lost);
}

static bool steps_lost(const fw_t *fw)
{
    bool found = false;
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        int32_t lost = fw_encoder_lost(fw, k);
        uint32_t size = (uint32_t)((lost < 0) ? -lost : lost);
        found = found || (size > fw->config.axis[k].lost);
    }
    return found;
}

/* At a change of input, on whole ms while something moves, and with each status. After any of
 * these faults the count is not to be trusted: not homed. */
void fw_watch(fw_t *fw)
{
    uint32_t fault = FW_OK;
    if (fw->fault != FW_OK) {
        return;
    }
    if (following_error(fw)) {
        fault = FW_FOLLOWING_ERROR;
    } else if (runs_into_limit(fw)) {
        fault = FW_LIMIT_SWITCH;
    } else if (steps_lost(fw)) {
        fault = FW_LOST_STEPS;
    } else {
        fault = FW_OK;
    }
    if (fault != (uint32_t)FW_OK) {
        fw->homed = false;
        fw_fault(fw, fault);
    }
}
