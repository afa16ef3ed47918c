/* Frames from the host: sequence, refusals, what each command does. */
#include "fw_internal.h"

#define NAK_AGAIN_US 10000u
#define JOG_NAK_AGAIN_US 100000u

static bool later(uint32_t a, uint32_t b)
{
    uint32_t ahead = a - b;
    return (ahead != 0u) && (ahead < 0x80000000u);
}

/* True when it counts. */
static bool beat(fw_t *fw, const uint8_t *p)
{
    uint32_t session = fw_u32(&p[4]);
    uint32_t counter = fw_u32(&p[8]);
    bool newer = (session > fw->session) || ((session == fw->session) && (counter > fw->counter));
    bool counts = newer && (fw_u32(p) == fw->boot_nonce);
    if (counts) {
        fw->session = session;
        fw->counter = counter;
        fw->beat_us = fw->now;
        board_trace(fw->board, FW_T_BEAT, 0);
    }
    return counts;
}

/* A beat with speeds. Never sent again by the host, so told apart from what it was not. */
static void jog(fw_t *fw, const uint8_t *p)
{
    if (!beat(fw, p)) {
        return;
    }
    uint32_t reason = (fw_u32(&p[12]) != fw->urgent) ? (uint32_t)FW_NAK_STALE : fw_jog(fw, &p[16]);
    if (reason == (uint32_t)FW_OK) {
        fw->jog_nak_open = false;
    } else if (!fw->jog_nak_open || (fw->now - fw->jog_nak_us >= JOG_NAK_AGAIN_US)) {
        fw->jog_nak_open = true;
        fw->jog_nak_us = fw->now;
        fw_send_nak(fw, reason, FW_JOG, 0);
    } else {
        /* told already */
    }
}

static uint32_t arm(fw_t *fw, const uint8_t *p)
{
    uint32_t session = fw_u32(&p[4]);
    if (fw_u32(p) != fw->boot_nonce) {
        return FW_NAK_NONCE;
    }
    if ((session <= fw->armed_session) || (session < fw->session)) {
        return FW_NAK_SESSION;
    }
    if (fw_u32(&p[8]) != fw->config.hash) {
        return FW_NAK_CONFIG;
    }
    if (fw_u32(&p[12]) != fw->urgent) {
        return FW_NAK_STALE;
    }
    if (fw->fault != FW_OK) {
        return FW_NAK_FAULT;
    }
    if (!fw->homed) {
        return FW_NAK_NOT_HOMED;
    }
    if (!fw->interlock) {
        return FW_NAK_INTERLOCK;
    }
    if ((fw->state != FW_IDLE) && (fw->state != FW_HELD)) {
        return FW_NAK_STATE;
    }
    if (fw_input_in_the_way(fw)) {
        return FW_NAK_INPUT;
    }
    if (session > fw->session) {
        fw->session = session;
        fw->counter = 0;
    }
    fw->armed_session = session;
    fw->beat_us = fw->now;
    fw_set_armed(fw, true);
    return FW_OK;
}

static void disarm(fw_t *fw)
{
    bool idle = (fw->state == FW_IDLE) && (fw_queue_count(fw) == 0u);
    if (fw->jogging) {
        fw_jog_stop(fw);
    } else if (!idle) {
        fw_hold(fw, 1);
    }
    fw_set_armed(fw, false);
    fw_gate_update(fw);
    fw_power_set(fw, 0);
}

static uint32_t unhold(fw_t *fw, const uint8_t *p)
{
    if (fw_u32(p) != fw->urgent) {
        return FW_NAK_STALE;
    }
    if (fw->fault != FW_OK) {
        return FW_NAK_FAULT;
    }
    fw->hold_pending = false;
    if (!fw->hold) {
        return FW_OK;
    }
    bool queued = fw_queue_count(fw) > 0u;
    if (queued && !fw->armed) {
        return FW_NAK_NOT_ARMED;
    }
    if (queued && !fw_enough_to_start(fw)) {
        return FW_NAK_LOW;
    }
    fw_log(fw, FW_T_HOLD, 0);
    fw->hold = false;
    if (fw->state == FW_HOLDING) {
        fw_set_state(fw, FW_RUNNING);
        fw_play_replan(fw);
    } else if (fw->state == FW_HELD) {
        if (fw->playing) {
            fw_set_state(fw, FW_RUNNING);
            fw_play_start(fw);
        } else {
            fw->suppress = false;
            fw_set_state(fw, FW_IDLE);
        }
    }
    return FW_OK;
}

static uint32_t reset(fw_t *fw, const uint8_t *p)
{
    if (fw_u32(p) != fw->urgent) {
        return FW_NAK_STALE;
    }
    if (fw->fault == FW_OK) {
        return FW_OK;
    }
    if (!fw_resting(fw)) {
        return FW_NAK_BUSY;
    }
    if ((fw->fault == FW_INTERLOCK_LOST) && !fw->interlock) {
        return FW_NAK_INTERLOCK;
    }
    if ((fw->fault == FW_FOLLOWING_ERROR) && board_input(fw->board, BOARD_IN_FOLLOWING)) {
        return FW_NAK_INPUT;
    }
    for (uint32_t k = 0; (fw->fault == FW_LOST_STEPS) && (k < fw->config.n_axes); k++) {
        fw_encoder_mark(fw, k);
    }
    fw_log(fw, FW_T_FAULT_RESET, (int32_t)fw->fault);
    fw->fault = FW_OK;
    fw->hold = false;
    fw->suppress = false;
    fw->set = FW_SCALE_ONE;
    fw->scale = FW_SCALE_ONE;
    fw_set_state(fw, FW_IDLE);
    return FW_OK;
}

static uint32_t override(fw_t *fw, const uint8_t *p)
{
    uint32_t scale = fw_u16(p);
    if ((scale == 0u) || (scale < fw->least_override)) {
        fw_hold(fw, 1);
        return FW_OK;
    }
    if (scale > 32768u) {
        /* one step of rounding and 2 % are free, as in fw_queue.c */
        bool fast = (uint64_t)scale * fw->speed_share > (uint64_t)33424u * 32768u;
        if ((scale > fw->config.override_max) || fast) {
            return FW_NAK_RANGE;
        }
    }
    fw->set = (int32_t)(scale << 9);
    if (fw_moving(fw)) {
        fw_play_replan(fw);
    }
    return FW_OK;
}

static uint32_t home(fw_t *fw, const uint8_t *p)
{
    if (fw_u32(p) != fw->urgent) {
        return FW_NAK_STALE;
    }
    if (fw->fault != FW_OK) {
        return FW_NAK_FAULT;
    }
    if ((fw->state != FW_IDLE) || fw->armed || (fw_queue_count(fw) > 0u)) {
        return FW_NAK_STATE;
    }
    if (!fw_beat_fresh(fw)) {
        return FW_NAK_NO_BEAT;
    }
    fw_home_start(fw);
    return FW_OK;
}

static uint32_t probe(fw_t *fw, const uint8_t *p)
{
    return (fw_u32(p) != fw->urgent) ? (uint32_t)FW_NAK_STALE : fw_probe(fw, p);
}

static uint32_t flush(fw_t *fw, const uint8_t *p)
{
    if (fw_u32(&p[4]) != fw->urgent) {
        return FW_NAK_STALE;
    }
    if (!fw_resting(fw)) {
        return FW_NAK_BUSY;
    }
    fw->playing = false;
    fw_queue_clear(fw, fw_u32(p));
    if (fw->fault == FW_OK) {
        fw->hold = false;
        fw->hold_pending = false;
        fw->suppress = false;
        fw->scale = fw->set;
        fw_set_state(fw, FW_IDLE);
    }
    return FW_OK;
}

/* HOLD: now if the plan has the gate shut, else at its next falling edge. */
static void hold_at_track_end(fw_t *fw)
{
    uint32_t flags = fw->queue[fw->tail & (FW_QUEUE - 1u)].flags;
    if (fw->hold || (fw->fault != FW_OK)) {
        return;
    }
    fw_log(fw, FW_T_HOLD, 2);
    if (fw->playing && ((flags & FW_FLAG_GATE) != 0u)) {
        fw->hold_pending = true;
    } else {
        fw_hold(fw, 2);
    }
}

static void trim(fw_t *fw, const uint8_t *p)
{
    fw->trim = fw_u16(p);
    fw->trim_us = fw->now;
    if (fw_moving(fw)) {
        fw_play_to_now(fw);
    }
}

static uint32_t sequenced(fw_t *fw, uint32_t type, const uint8_t *p, uint32_t n)
{
    uint32_t reason = FW_OK;
    switch (type) {
    case FW_SEGMENTS:
        reason = fw_queue_take(fw, p, n);
        break;
    case FW_ARM:
        reason = arm(fw, p);
        break;
    case FW_HOLD:
        hold_at_track_end(fw);
        break;
    case FW_UNHOLD:
        reason = unhold(fw, p);
        break;
    case FW_RESET:
        reason = reset(fw, p);
        break;
    case FW_OVERRIDE:
        reason = override(fw, p);
        break;
    case FW_TRIM:
        trim(fw, p);
        break;
    case FW_HOME:
        reason = home(fw, p);
        break;
    case FW_PROBE:
        reason = probe(fw, p);
        break;
    case FW_LAW:
        reason = fw_law_take(fw, p);
        break;
    default: /* FLUSH, the only other one that the receiver lets pass */
        reason = flush(fw, p);
        break;
    }
    return reason;
}

static void gap(fw_t *fw, uint32_t reason, uint32_t type, uint32_t number)
{
    if (!fw->nak_open || (fw->now - fw->nak_us >= NAK_AGAIN_US)) {
        fw->nak_open = true;
        fw->nak_us = fw->now;
        fw_send_nak(fw, reason, type, number);
    }
}

static void urgent(fw_t *fw, uint32_t type, uint32_t number)
{
    fw->urgent = later(number, fw->urgent) ? number : fw->urgent;
    fw->ack_due = true;
    if (type == (uint32_t)FW_ABORT) {
        fw_fault(fw, FW_HOST_ABORT);
    } else if (type == (uint32_t)FW_HOLD_NOW) {
        fw_hold(fw, 1);
    } else {
        disarm(fw);
    }
}

static void in_order(fw_t *fw, uint32_t type, uint32_t number, const uint8_t *p, uint32_t n)
{
    if (number != fw->next_seq) {
        if (later(number, fw->next_seq)) {
            gap(fw, FW_NAK_SEQUENCE, type, number);
        } else {
            fw->ack_due = true; /* a repeat: acknowledged, without effect */
        }
        return;
    }
    if ((type == (uint32_t)FW_SEGMENTS) && ((n - 4u) / FW_SEGMENT_SIZE > fw_queue_free(fw))) {
        gap(fw, FW_NAK_FULL, type, number);
        return;
    }
    fw->next_seq++;
    fw->nak_open = false;
    fw->ack_due = true;
    uint32_t reason = sequenced(fw, type, p, n);
    if (reason != (uint32_t)FW_OK) {
        fw_send_nak(fw, reason, type, number);
    }
}

void fw_command(fw_t *fw, uint32_t type, uint32_t number, const uint8_t *p, uint32_t n)
{
    switch (type) {
    case FW_HELLO:
        fw_send_hello(fw);
        break;
    case FW_BEAT:
        (void)beat(fw, p);
        break;
    case FW_JOG:
        jog(fw, p);
        break;
    case FW_DISARM:
    case FW_HOLD_NOW:
    case FW_ABORT:
        urgent(fw, type, number);
        break;
    default:
        in_order(fw, type, number, p, n);
        break;
    }
}

void fw_start_if_ready(fw_t *fw)
{
    if ((fw->state == FW_IDLE) && fw->armed && !fw->hold && fw_beat_fresh(fw) &&
        fw_enough_to_start(fw)) {
        fw_set_state(fw, FW_RUNNING);
        fw_play_start(fw);
    }
}
