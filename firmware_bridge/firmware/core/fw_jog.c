/* Jog and probe: axes by speed, not by queue (docs/protocol.md, JOG and PROBE).
 *
 * Speeds change on whole ms only; steps within the ms follow from the time passed, so the
 * outcome does not depend on how often fw_run() is called. An axis that goes to a point
 * (travel limit, end of a probe) is so slow at each ms that it stops there.
 */
#include "fw_internal.h"

#define JOG_LIFE_US 100000u
#define PART 1000000

static uint32_t size_of(int32_t v)
{
    return (v < 0) ? (uint32_t)0 - (uint32_t)v : (uint32_t)v;
}

static int32_t homing_speed(const fw_t *fw, uint32_t axis)
{
    const fw_axis_t *a = &fw->config.axis[axis];
    uint64_t v = ((uint64_t)fw->config.homing_um_s * a->milli_steps_mm) / 1000000u;
    v = (v > a->speed) ? a->speed : v;
    return (int32_t)((v < 1u) ? 1u : v);
}

static int32_t between(int32_t v, int32_t most)
{
    int32_t low = (v < -most) ? -most : v;
    return (low > most) ? most : low;
}

/* Greatest speed from which the axis stops within the way (1e-6 steps), this ms included:
 * v (v / dv + 1) / 2 ms. */
static int32_t stopping_speed(const fw_axis_t *a, int64_t way)
{
    if (way <= 0) {
        return 0;
    }
    if (way >= (int64_t)a->speed * PART) {
        return (int32_t)a->speed; /* no axis needs a second to stop */
    }
    uint64_t dv = a->jog_dv;
    uint64_t v = ((uint64_t)fw_isqrt(dv * dv + dv * ((uint64_t)way / 125u)) - dv) / 2u;
    uint64_t whole = (uint64_t)way / 1000u; /* not further than the way in this ms */
    v = (v > whole) ? whole : v;
    return (int32_t)((v > a->speed) ? a->speed : v);
}

static void engine_start(fw_t *fw)
{
    if (!fw->jogging) {
        fw->jogging = true;
        fw->slice_t = fw->now;
        fw->slice_len = 1000u - (uint32_t)(fw->now % 1000u);
        for (uint32_t k = 0; k < FW_AXES; k++) {
            fw->jog_v[k] = 0;
            fw->jog_goal[k] = 0;
            fw->jog_part[k] = PART / 2;
            fw->jog_done[k] = 0;
        }
    }
}

/* Speeds of a JOG that has been found fresh. */
uint32_t fw_jog(fw_t *fw, const uint8_t *speeds)
{
    bool ready = (fw->state == FW_JOGGING) || ((fw->state == FW_IDLE) && !fw->armed &&
                                               (fw_queue_count(fw) == 0u));
    bool any = false;
    if (fw->fault != FW_OK) {
        return FW_NAK_FAULT;
    }
    if (!ready || fw->hold) {
        return FW_NAK_STATE;
    }
    for (uint32_t k = 0; k < FW_AXES; k++) {
        int32_t v = fw_i32(&speeds[4u * k]);
        any = any || (v != 0);
        if ((v != 0) && ((k >= fw->config.n_axes) || (size_of(v) > fw->config.axis[k].speed))) {
            return FW_NAK_RANGE;
        }
    }
    if (any && (fw->state == FW_IDLE)) {
        fw_set_state(fw, FW_JOGGING);
        engine_start(fw);
    }
    fw->jog_us = fw->now;
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        int32_t v = fw_i32(&speeds[4u * k]);
        fw->jog_goal[k] = fw->homed ? v : between(v, homing_speed(fw, k));
    }
    return FW_OK;
}

/* PROBE: urgent number, axis, 3 zero bytes, target, speed. */
uint32_t fw_probe(fw_t *fw, const uint8_t *p)
{
    uint32_t axis = p[4];
    int32_t target = fw_i32(&p[8]);
    uint32_t speed = fw_u32(&p[12]);
    if (fw->fault != FW_OK) {
        return FW_NAK_FAULT;
    }
    if ((fw->state != FW_IDLE) || fw->armed || (fw_queue_count(fw) > 0u)) {
        return FW_NAK_STATE;
    }
    if (!fw->homed) {
        return FW_NAK_NOT_HOMED;
    }
    if (!fw_beat_fresh(fw)) {
        return FW_NAK_NO_BEAT;
    }
    if (!fw->config.probe || (axis >= fw->config.n_axes) || (speed < 1u) ||
        (speed > fw->config.axis[axis].speed) || (target < fw->config.axis[axis].min) ||
        (target > fw->config.axis[axis].max)) {
        return FW_NAK_RANGE;
    }
    if (board_input(fw->board, BOARD_IN_PROBE)) {
        return FW_NAK_INPUT;
    }
    fw->probe_axis = axis;
    fw->probe_target = target;
    fw->probe_result = FW_PROBE_UNDER_WAY;
    fw_set_state(fw, FW_PROBING);
    engine_start(fw);
    fw->jog_goal[axis] = (int32_t)((target < fw->pos[axis]) ? -(int64_t)speed : (int64_t)speed);
    return FW_OK;
}

/* Decelerate, whatever it was. */
void fw_jog_stop(fw_t *fw)
{
    if (fw->probe_result == FW_PROBE_UNDER_WAY) {
        fw->probe_result = FW_PROBE_ENDED;
    }
    for (uint32_t k = 0; k < FW_AXES; k++) {
        fw->jog_goal[k] = 0;
    }
}

/* The probe's edge: the position is the one at this instant. */
void fw_probe_look(fw_t *fw)
{
    if ((fw->probe_result == FW_PROBE_UNDER_WAY) && board_input(fw->board, BOARD_IN_PROBE)) {
        fw->probe_result = FW_PROBE_FOUND;
        fw->probe_pos = fw->pos[fw->probe_axis];
        fw_log(fw, FW_T_PROBED, fw->probe_pos);
        fw_jog_stop(fw);
    }
}

/* Steps due since the slice began, and what is over. */
static int64_t steps_due(const fw_t *fw, uint32_t axis, int64_t *part)
{
    int64_t way = fw->jog_part[axis] + (int64_t)fw->jog_v[axis] * (int64_t)(fw->now - fw->slice_t);
    int64_t due = way / PART;
    if (way % PART < 0) {
        due--;
    }
    *part = way - due * PART;
    return due;
}

void fw_jog_to_now(fw_t *fw)
{
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        int64_t part = 0;
        int64_t due = steps_due(fw, k, &part);
        int32_t step = (due < fw->jog_done[k]) ? -1 : 1;
        while (fw->jog_done[k] != due) {
            fw->jog_done[k] += step;
            fw->pos[k] += step;
            board_step(fw->board, k, step);
            fw_probe_look(fw);
        }
    }
}

/* How far the axis may still go at most in its direction, 1e-6 steps. */
static int64_t way_left(const fw_t *fw, uint32_t axis, int32_t v)
{
    const fw_axis_t *a = &fw->config.axis[axis];
    int64_t end = (v > 0) ? a->max : a->min;
    if (fw->probe_result == FW_PROBE_UNDER_WAY) {
        end = fw->probe_target;
    } else if (!fw->homed) {
        return INT64_MAX;
    } else {
        /* the travel range */
    }
    int64_t way = (end - fw->pos[axis]) * PART + PART / 2 - fw->jog_part[axis];
    return (v > 0) ? way : -way;
}

static int32_t next_speed(const fw_t *fw, uint32_t axis)
{
    const fw_axis_t *a = &fw->config.axis[axis];
    int32_t dv = (int32_t)a->jog_dv;
    int32_t v = fw->jog_v[axis];
    int32_t change = between(fw->jog_goal[axis] - v, dv);
    v += change;
    if ((v != 0) && (fw->fault == FW_OK) && fw_limit_closed(fw, axis, v > 0)) {
        v = 0; /* away from it only */
    }
    return (v == 0) ? 0 : between(v, stopping_speed(a, way_left(fw, axis, v)));
}

static void come_to_rest(fw_t *fw)
{
    fw->jogging = false;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        fw->planned[k] = fw->pos[k];
    }
    if (fw->probe_result == FW_PROBE_UNDER_WAY) {
        fw->probe_result = FW_PROBE_MISSED;
        fw_log(fw, FW_T_PROBE_MISSED, fw->pos[fw->probe_axis]);
    }
    fw_at_rest(fw);
}

/* A control slice ends at this instant. */
void fw_jog_events(fw_t *fw)
{
    bool rest = true;
    if (fw->now - fw->slice_t < fw->slice_len) {
        return;
    }
    if ((fw->state == FW_JOGGING) && (fw->now - fw->jog_us >= JOG_LIFE_US)) {
        fw_jog_stop(fw);
    }
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        int64_t part = 0;
        (void)steps_due(fw, k, &part);
        fw->jog_part[k] = part;
        fw->jog_done[k] = 0;
        fw->jog_v[k] = next_speed(fw, k);
        rest = rest && (fw->jog_v[k] == 0);
    }
    fw->slice_t = fw->now;
    fw->slice_len = 1000;
    bool wanted = (fw->state == FW_JOGGING) && (fw->now - fw->jog_us < JOG_LIFE_US);
    for (uint32_t k = 0; wanted && (k < fw->config.n_axes); k++) {
        rest = rest && (fw->jog_goal[k] == 0); /* held at a limit: still a jog */
    }
    if (rest) {
        come_to_rest(fw);
    }
}
