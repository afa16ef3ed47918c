/* Homing: each axis to its switch, zero there (docs/protocol.md, HOME).
 *
 * Speed changes on whole ms only; steps within the ms follow from the time passed, so the
 * outcome does not depend on how often fw_run() is called.
 */
#include "fw_internal.h"

enum { APPROACH, STOP, BACK_OFF, RETURN };

static bool at_switch(const fw_t *fw)
{
    return board_input(fw->board, BOARD_IN_SWITCH + fw->home_axis);
}

static uint32_t approach_speed(const fw_t *fw)
{
    const fw_axis_t *a = &fw->config.axis[fw->home_axis];
    uint64_t v = ((uint64_t)fw->config.homing_um_s * a->milli_steps_mm) / 1000000u;
    v = (v > a->speed) ? a->speed : v;
    return (uint32_t)((v < 1u) ? 1u : v);
}

/* So slow that it stops within a step: v^2 / (2 a) <= 1/2. */
static uint32_t low_speed(const fw_t *fw)
{
    uint32_t v = fw_isqrt(fw->config.axis[fw->home_axis].accel);
    uint32_t eighth = approach_speed(fw) / 8u;
    v = (v > eighth) ? eighth : v;
    return (v < 1u) ? 1u : v;
}

static uint32_t speed_change(const fw_t *fw)
{
    uint32_t dv = fw->config.axis[fw->home_axis].accel / 1000u;
    return (dv < 1u) ? 1u : dv;
}

static void begin_axis(fw_t *fw, uint32_t axis)
{
    fw->home_axis = axis;
    fw->home_phase = at_switch(fw) ? BACK_OFF : APPROACH;
    fw->home_speed = 0;
    fw->home_frac = 0;
    fw->home_made = 0;
    fw->home_done = 0;
}

void fw_home_start(fw_t *fw)
{
    fw->homed = false;
    fw->home_stop = false;
    fw->slice_t = fw->now;
    fw->slice_len = 1000u - (uint32_t)(fw->now % 1000u);
    fw_set_state(fw, FW_HOMING);
    begin_axis(fw, 0);
}

void fw_home_to_now(fw_t *fw)
{
    uint64_t dt = fw->now - fw->slice_t;
    uint64_t due = (fw->home_frac + fw->home_speed * dt) / 1000000u;
    bool back = fw->home_phase == BACK_OFF;
    while (fw->home_done < due) {
        fw->home_done++;
        if (fw->home_speed == 0u) {
            continue; /* the switch opened within this slice: the rest of it is not stepped */
        }
        fw->pos[fw->home_axis] += back ? 1 : -1;
        fw->home_made++;
        board_step(fw->board, fw->home_axis, back ? 1 : -1);
        if (back && !at_switch(fw)) {
            fw->home_phase = RETURN;
            fw->home_speed = 0;
        }
        if ((fw->home_phase == APPROACH) && at_switch(fw)) {
            fw->home_phase = STOP;
        }
    }
}

/* Which way the axis under way goes: -1, 0, 1. */
int32_t fw_home_direction(const fw_t *fw)
{
    if (fw->home_speed == 0u) {
        return 0;
    }
    return (fw->home_phase == BACK_OFF) ? 1 : -1;
}

static void axis_done(fw_t *fw)
{
    fw->pos[fw->home_axis] = 0;
    fw_encoder_mark(fw, fw->home_axis);
    if (fw->home_axis + 1u < fw->config.n_axes) {
        begin_axis(fw, fw->home_axis + 1u);
        return;
    }
    fw->homed = true;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        fw->planned[k] = fw->pos[k];
    }
    fw_log(fw, FW_T_HOMED, 0);
    fw_set_state(fw, FW_IDLE);
}

/* A control slice ends at this instant. */
void fw_home_events(fw_t *fw)
{
    const fw_axis_t *a = &fw->config.axis[fw->home_axis];
    uint64_t dt = fw->now - fw->slice_t;
    if (dt < fw->slice_len) {
        return;
    }
    fw->home_frac = (fw->home_frac + fw->home_speed * dt) % 1000000u;
    fw->home_done = 0;
    fw->slice_t = fw->now;
    fw->slice_len = 1000;

    uint32_t dv = speed_change(fw);
    uint32_t slower = (fw->home_speed > dv) ? fw->home_speed - dv : 0u;
    if (fw->home_stop) {
        fw->home_speed = slower;
        if (slower == 0u) {
            fw_at_rest(fw);
        }
        return;
    }
    uint64_t range = (uint64_t)((int64_t)a->max - (int64_t)a->min);
    if (fw->home_made > range + range / 10u) {
        fw_fault(fw, FW_HOMING_FAILED);
        return;
    }
    if (fw->home_phase == APPROACH) {
        uint32_t v = approach_speed(fw);
        fw->home_speed = (fw->home_speed + dv < v) ? fw->home_speed + dv : v;
    } else if (fw->home_phase == STOP) {
        fw->home_speed = slower;
        if (slower == 0u) {
            fw->home_phase = BACK_OFF;
            fw->home_made = 0;
            fw->home_frac = 0;
        }
    } else if (fw->home_phase == BACK_OFF) {
        fw->home_speed = low_speed(fw);
    } else {
        board_step(fw->board, fw->home_axis, -1);
        axis_done(fw);
    }
}
