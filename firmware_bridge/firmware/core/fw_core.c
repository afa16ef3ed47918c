/* Guards and states, and the order of what happens at one instant. */
#include <string.h>

#include "fw_internal.h"

#define STATUS_US 10000u
#define TRIM_LIFE_US 100000u

bool fw_init(fw_t *fw, void *board, const uint8_t *config, uint32_t n, uint32_t boot_nonce)
{
    (void)memset(fw, 0, sizeof(*fw));
    fw->board = board;
    if (!fw_config_read(&fw->config, config, n)) {
        return false;
    }
    fw->boot_nonce = boot_nonce;
    fw->next_seq = boot_nonce;
    fw->beat_us = FW_NEVER;
    fw->trim = 32768u;
    fw->set = FW_SCALE_ONE;
    fw->scale = FW_SCALE_ONE;
    fw->slice_len = 1;
    fw->seg_end = FW_NEVER;
    fw->status_due = STATUS_US;
    fw->interlock = board_input(board, BOARD_IN_INTERLOCK);
    fw_queue_clear(fw, 0);
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        fw_encoder_mark(fw, k);
    }
    board_gate(board, false);
    board_power(board, 0);
    fw_log(fw, FW_T_POWER_UP, 0);
    return true;
}

bool fw_beat_fresh(const fw_t *fw)
{
    return (fw->beat_us != FW_NEVER) && (fw->now - fw->beat_us < fw->config.heartbeat_us);
}

/* No axis moves. */
bool fw_resting(const fw_t *fw)
{
    if (fw->state == FW_FAULTED) {
        return !fw->playing && !fw->home_stop && !fw->jogging;
    }
    return (fw->state == FW_IDLE) || (fw->state == FW_HELD);
}

/* The player is under way. */
bool fw_moving(const fw_t *fw)
{
    return fw->playing && ((fw->state == FW_RUNNING) || (fw->state == FW_HOLDING) ||
                           (fw->state == FW_FAULTED));
}

void fw_set_state(fw_t *fw, uint32_t state)
{
    if (fw->state != state) {
        fw->state = state;
        fw_log(fw, FW_T_STATE, (int32_t)state);
    }
}

void fw_set_armed(fw_t *fw, bool armed)
{
    if (fw->armed != armed) {
        fw->armed = armed;
        fw_log(fw, FW_T_ARMED, armed ? 1 : 0);
    }
}

void fw_power_set(fw_t *fw, uint16_t power)
{
    if (fw->power != power) {
        fw->power = power;
        board_power(fw->board, power);
    }
}

/* The one place that opens and shuts the gate. */
void fw_gate_update(fw_t *fw)
{
    uint32_t flags = fw->queue[fw->tail & (FW_QUEUE - 1u)].flags;
    bool on = fw->armed && (fw->fault == FW_OK) && fw->interlock && (fw->state == FW_RUNNING) &&
              fw->playing && !fw->suppress && ((flags & FW_FLAG_GATE) != 0u) && fw_beat_fresh(fw);
    if (on != fw->gate) {
        fw->gate = on;
        board_gate(fw->board, on);
        if (on) {
            fw->gate_on_us = fw->now;
            fw->moved_us = fw->now;
        }
        fw_log(fw, FW_T_GATE, on ? 1 : 0);
    }
}

/* Decelerate and stay. kind: 1 HOLD_NOW, 2 end of track, 3 queue low. */
void fw_hold(fw_t *fw, int32_t kind)
{
    fw->hold_pending = false;
    if (fw->hold || (fw->fault != FW_OK)) {
        return;
    }
    fw->hold = true;
    fw->suppress = true;
    if (kind != 2) {
        fw_log(fw, FW_T_HOLD, kind); /* HOLD was logged when it came */
    }
    if (fw->state == FW_RUNNING) {
        fw_set_state(fw, FW_HOLDING);
        fw_play_replan(fw);
    } else if (fw->state == FW_IDLE) {
        fw_set_state(fw, FW_HELD);
    } else if (fw->state == FW_HOMING) {
        fw->home_stop = true;
    } else {
        fw_jog_stop(fw); /* jog or probe; HELD stays */
    }
    fw_gate_update(fw);
}

/* Latch, gate off, decelerate. The first cause stays. */
void fw_fault(fw_t *fw, uint32_t fault)
{
    if (fw->fault != FW_OK) {
        return;
    }
    bool homing = fw->state == FW_HOMING;
    bool resting = fw_resting(fw);
    fw->fault = fault;
    fw_gate_update(fw);
    fw_power_set(fw, 0);
    fw_log(fw, FW_T_FAULT, (int32_t)fault);
    fw_set_armed(fw, false);
    fw->hold = true;
    fw->hold_pending = false;
    fw->home_stop = homing;
    fw_jog_stop(fw);
    fw_set_state(fw, FW_FAULTED);
    if (resting) {
        fw->playing = false;
    }
    if (fw->playing) {
        fw_play_replan(fw);
    } else if (!homing && !fw->jogging) {
        fw_at_rest(fw);
    }
    fw_send_events(fw);
}

/* Axes have come to rest, or the queue has run out. */
void fw_at_rest(fw_t *fw)
{
    if (fw->home_stop) { /* homing was ended */
        fw->home_stop = false;
        fw->home_speed = 0;
        if (fw->fault == FW_OK) {
            fw->hold = false;
            fw->suppress = false;
            fw_set_state(fw, FW_IDLE);
        }
        return;
    }
    if (fw->fault != FW_OK) {
        fw->playing = false;
        fw->seg_end = FW_NEVER;
        fw_queue_clear(fw, fw->next_index);
    } else if (fw->hold) {
        fw_set_state(fw, FW_HELD);
    } else {
        fw->suppress = false;
        fw->hold_pending = false;
        fw_set_state(fw, FW_IDLE);
    }
    fw_gate_update(fw);
    fw_power_set(fw, 0);
}

/* Axes to this instant, before what may change them. */
static void move_to_now(fw_t *fw)
{
    if (fw_moving(fw)) {
        fw_play_to_now(fw);
    }
    if ((fw->state == FW_HOMING) || fw->home_stop) {
        fw_home_to_now(fw);
    }
    if (fw->jogging) {
        fw_jog_to_now(fw);
    }
}

void fw_inputs(fw_t *fw)
{
    bool interlock = board_input(fw->board, BOARD_IN_INTERLOCK);
    if (interlock != fw->interlock) {
        fw->interlock = interlock;
        fw_gate_update(fw);
    }
    if (fw->armed && !fw->interlock) {
        fw_fault(fw, FW_INTERLOCK_LOST);
    }
    fw_probe_look(fw);
    fw_watch(fw);
}

static bool watching_beat(const fw_t *fw)
{
    return fw->armed || ((fw->state == FW_HOMING) && !fw->home_stop) || (fw->state == FW_PROBING);
}

static void earliest(uint64_t *next, uint64_t t)
{
    if (t < *next) {
        *next = t;
    }
}

/* An axis moves by any of the three ways: its control slice ends sometime. */
static bool in_slices(const fw_t *fw)
{
    return fw_moving(fw) || (fw->state == FW_HOMING) || fw->home_stop || fw->jogging;
}

static uint64_t next_instant(const fw_t *fw, uint64_t until)
{
    uint64_t next = until;
    earliest(&next, fw->status_due);
    if (fw_moving(fw)) {
        earliest(&next, fw->seg_end);
    }
    if (in_slices(fw)) {
        earliest(&next, fw->slice_t + fw->slice_len);
    }
    if (watching_beat(fw)) {
        earliest(&next, fw->beat_us + fw->config.heartbeat_us);
    }
    if (fw->gate) {
        earliest(&next, fw->gate_on_us + fw->config.max_on_us);
    }
    if (fw->trim != 32768u) {
        earliest(&next, fw->trim_us + TRIM_LIFE_US);
    }
    return next;
}

/* Before the next segment: a gate that must be shut does not open for an instant. */
static void guards(fw_t *fw, bool look)
{
    if (watching_beat(fw) && !fw_beat_fresh(fw)) {
        fw_fault(fw, FW_BEAT_LOST);
    }
    if (fw->gate && (fw->now - fw->gate_on_us >= fw->config.max_on_us)) {
        fw_fault(fw, FW_MAX_ON_TIME);
    }
    if (look) {
        fw_watch(fw);
    }
}

void fw_step(fw_t *fw, uint64_t until)
{
    bool moving = fw_moving(fw);
    bool homing = (fw->state == FW_HOMING) || fw->home_stop;
    bool jogging = fw->jogging;
    uint64_t next = next_instant(fw, until);
    fw->now = (next > fw->now) ? next : fw->now;
    bool status = fw->now >= fw->status_due;
    bool slice = in_slices(fw) && (fw->now - fw->slice_t >= fw->slice_len);

    if ((fw->trim != 32768u) && (fw->now - fw->trim_us >= TRIM_LIFE_US)) {
        fw->trim = 32768u;
    }
    move_to_now(fw);
    guards(fw, status || slice);
    if (homing) {
        fw_home_events(fw);
    }
    if (jogging) {
        fw_jog_events(fw);
    }
    if (moving) {
        fw_play_events(fw);
    }
    fw_gate_update(fw);
    if (status) {
        fw->status_due = (fw->now / STATUS_US + 1u) * STATUS_US;
        fw_send_events(fw);
        fw_send_status(fw);
    }
}

void fw_run(fw_t *fw, uint64_t until)
{
    while (fw->now < until) {
        fw_step(fw, until);
    }
}
