/* Plays the queue: position, power and time scale at any instant.
 *
 * The scale runs linearly within a control slice (at most 1 ms, ends on whole ms). Position
 * is a function of the time since the slice began, so it does not depend on how often
 * fw_run() is called: every port makes the same steps.
 */
#include "fw_internal.h"

#define ONE_Q30 (1u << 30)
#define W_LEAST 16u       /* 0.256 ms: bounds the change of scale near standstill */
#define LOOK_AHEAD 8u     /* segments looked at for the fastest point of the next ms */
#define STILL_US 50000u

static const fw_segment_t *current(const fw_t *fw)
{
    return &fw->queue[fw->tail & (FW_QUEUE - 1u)];
}

/* Scaled time of the slice after dt us, Q24 us. */
static int64_t advance(const fw_t *fw, uint32_t dt)
{
    int64_t t = (int64_t)dt;
    int64_t bend = ((int64_t)fw->delta * t * t) / (2 * (int64_t)fw->slice_len);
    return (int64_t)fw->scale * t + bend;
}

static int32_t scale_at(const fw_t *fw, uint32_t dt)
{
    int64_t change = ((int64_t)fw->delta * (int64_t)dt) / (int64_t)fw->slice_len;
    return fw->scale + (int32_t)change;
}

static uint32_t since_slice(const fw_t *fw)
{
    return (uint32_t)(fw->now - fw->slice_t);
}

/* Instant at which the segment ends, or FW_NEVER when that is after this slice. */
static void find_segment_end(fw_t *fw)
{
    int64_t end = (int64_t)((uint64_t)fw->seg_ticks << 24);
    fw->seg_end = FW_NEVER;
    if (fw->tau + advance(fw, fw->slice_len) < end) {
        return;
    }
    uint32_t low = 0;
    uint32_t high = fw->slice_len; /* least dt with tau + advance(dt) >= end is in 0..high */
    if ((fw->delta == 0) && (fw->scale > 0)) {
        int64_t rest = end - fw->tau;
        high = (rest <= 0) ? 0u : (uint32_t)((rest + fw->scale - 1) / fw->scale);
        low = high;
    }
    while (low < high) {
        uint32_t mid = (low + high) / 2u;
        if (fw->tau + advance(fw, mid) >= end) {
            high = mid;
        } else {
            low = mid + 1u;
        }
    }
    uint64_t t = fw->slice_t + high;
    fw->seg_end = (t > fw->now) ? t : fw->now;
}

/* Time constant at part x of a segment's time, 16 us. */
static uint32_t w_at(const fw_segment_t *s, uint32_t x)
{
    int64_t r = (int64_t)s->ratio; /* Q15; speed / mean speed = r + 2 (1 - r) x */
    int64_t ratio = r + ((2 * (32768 - r) * (int64_t)x) >> 30);
    ratio = (ratio < 0) ? 0 : ratio;
    return (uint32_t)(((int64_t)s->w * ratio) >> 15);
}

/* The greatest time constant that the next ms may meet. */
static uint32_t worst_w(const fw_t *fw)
{
    const fw_segment_t *s = current(fw);
    uint32_t w = w_at(s, fw->x);
    int64_t rest = 1000 * (int64_t)((fw->scale > fw->set) ? fw->scale : fw->set);
    int64_t left = (int64_t)((uint64_t)fw->seg_ticks << 24) - fw->tau;
    if (rest < left) {
        uint64_t tau_q8 = (uint64_t)(fw->tau + rest) >> 16;
        uint32_t x = (uint32_t)((tau_q8 << 30) / ((uint64_t)fw->seg_ticks << 8));
        uint32_t w_end = w_at(s, x);
        w = (w_end > w) ? w_end : w;
    } else {
        uint32_t at = fw->tail;
        uint32_t w_end = w_at(s, ONE_Q30);
        w = (w_end > w) ? w_end : w;
        rest -= left;
        for (uint32_t i = 0; (i < LOOK_AHEAD) && (rest > 0); i++) {
            at++;
            if (at == fw->head) {
                break;
            }
            s = &fw->queue[at & (FW_QUEUE - 1u)];
            uint32_t w_start = w_at(s, 0);
            w_end = w_at(s, ONE_Q30);
            w = (w_start > w) ? w_start : w;
            w = (w_end > w) ? w_end : w;
            rest -= (int64_t)((uint64_t)fw_ticks(s) << 24);
        }
    }
    return (w < W_LEAST) ? W_LEAST : w;
}

/* Greatest change of scale in 1 ms from scale s: (1 - plan_share s^2) / w, Q24. */
static int32_t greatest_change(const fw_t *fw, int32_t scale, uint32_t w)
{
    uint32_t s = (uint32_t)scale >> 9; /* Q15 */
    uint32_t used = (uint32_t)(((((uint64_t)fw->config.plan_share * s) >> 15) * s) >> 15);
    uint32_t left = (used >= 32768u - 512u) ? 512u : 32768u - used;
    return (int32_t)(((uint64_t)left * 32000u) / w); /* 2^9 * 62.5: 1 ms is 62.5 units of w */
}

/* Ends the control slice at this instant. */
static void slice_cut(fw_t *fw)
{
    uint32_t dt = since_slice(fw);
    if (dt > 0u) {
        fw->tau += advance(fw, dt);
        fw->scale = scale_at(fw, dt);
        fw->slice_t = fw->now;
        fw->delta = 0;
        fw->slice_len = 1;
    }
}

/* Begins a control slice at this instant. */
static void slice_begin(fw_t *fw)
{
    fw->slice_t = fw->now;
    fw->slice_len = 1000u - (uint32_t)(fw->now % 1000u);
    int32_t target = fw->hold ? 0 : fw->set;
    fw->delta = target - fw->scale;
    if (fw->delta != 0) {
        uint32_t w = worst_w(fw);
        int32_t limit = greatest_change(fw, fw->scale, w);
        if (fw->delta > 0) {
            /* faster: less acceleration is left at the end of the slice, so that counts */
            int32_t ahead = (fw->delta < limit) ? fw->delta : limit;
            limit = greatest_change(fw, fw->scale + ahead, w);
        }
        if (fw->hold && (limit > 0)) {
            /* the stop ends where the scale is 0, not with the ms */
            uint32_t stop = (uint32_t)(((int64_t)fw->scale * 1000 + limit - 1) / limit);
            fw->slice_len = (stop < fw->slice_len) ? stop : fw->slice_len;
        }
        limit = (int32_t)(((int64_t)limit * (int64_t)fw->slice_len) / 1000);
        limit = (limit < 1) ? 1 : limit;
        fw->delta = (fw->delta > limit) ? limit : fw->delta;
        fw->delta = (fw->delta < -limit) ? -limit : fw->delta;
    }
    find_segment_end(fw);
}

static uint16_t power_now(const fw_t *fw)
{
    if (!fw->armed || (fw->fault != FW_OK) || !fw->playing) {
        return 0;
    }
    int32_t scale = scale_at(fw, since_slice(fw));
    if (fw->hold && (scale <= 0)) {
        return 0;
    }
    int64_t from = (int64_t)fw->power_start;
    int64_t p = from + ((((int64_t)current(fw)->power - from) * (int64_t)fw->x) / (int64_t)ONE_Q30);
    if (p > (int64_t)fw->power_floor) {
        p = fw_law_scaled(fw, p, scale);
    }
    p = (p * (int64_t)fw->trim) >> 15;
    return (uint16_t)((p > 65535) ? 65535 : p);
}

/* Steps and power at this instant. */
void fw_play_to_now(fw_t *fw)
{
    const fw_segment_t *s = current(fw);
    uint64_t tau = (uint64_t)(fw->tau + advance(fw, since_slice(fw)));
    uint64_t end = (uint64_t)fw->seg_ticks << 24;
    fw->x = (tau >= end) ? ONE_Q30 : (uint32_t)(((tau >> 16) << 30) / ((uint64_t)fw->seg_ticks << 8));
    uint64_t x2 = ((uint64_t)fw->x * fw->x) >> 30;
    int64_t bow = ((32768 - (int64_t)s->ratio) * (int64_t)x2) / 32768;
    int64_t f = (int64_t)(((uint64_t)s->ratio * fw->x) >> 15) + bow;
    if (fw->x == ONE_Q30) {
        f = (int64_t)ONE_Q30;
    }
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        int32_t d = s->d[k];
        if (d != 0) {
            int64_t size = (((d < 0) ? -(int64_t)d : (int64_t)d) * f + (int64_t)(ONE_Q30 / 2u)) >> 30;
            int32_t target = fw->base[k] + (int32_t)((d < 0) ? -size : size);
            int32_t steps = target - fw->pos[k];
            if (steps != 0) {
                fw->pos[k] = target;
                fw->moved = true;
                board_step(fw->board, k, steps);
            }
        }
    }
    fw_power_set(fw, power_now(fw));
}

/* The queue is empty after the last segment. */
static void ran_dry(fw_t *fw, bool end)
{
    fw->playing = false;
    fw->seg_end = FW_NEVER;
    fw->queued_us = 0;
    if (!end && (fw->fault == FW_OK)) {
        fw->scale = 0;
        fw_fault(fw, FW_UNDERRUN);
    }
    fw_at_rest(fw);
}

/* Takes the next segment that lasts; the scaled time `over` has passed in it already. */
static void next_segment(fw_t *fw, int64_t over, bool end)
{
    bool ended = end;
    fw->tau = over;
    while (fw->tail != fw->head) {
        const fw_segment_t *s = current(fw);
        fw->index++;
        if ((s->flags & FW_FLAG_PARAM) == 0u) {
            bool gate = (s->flags & FW_FLAG_GATE) != 0u;
            fw->seg_ticks = fw_ticks(s);
            fw_law_segment(fw, s);
            fw->x = 0;
            fw->playing = true;
            for (uint32_t k = 0; k < FW_AXES; k++) {
                fw->base[k] = fw->pos[k];
            }
            if (fw->hold_pending && !gate) {
                fw_hold(fw, 2);
            }
            if ((s->flags & FW_FLAG_TRACK_START) != 0u) {
                fw->tracks++;
                fw_log(fw, FW_T_TRACK_START, (int32_t)(fw->tracks & 0x7FFFFFFFu));
            }
            find_segment_end(fw);
            return;
        }
        fw->power_floor = s->power;
        fw->least_override = s->speed;
        fw->law = (uint32_t)s->d[0];
        fw->cap = fw_param_cap(s);
        fw->tail++;
        board_trace(fw->board, FW_T_SEGMENT_END, 0);
        ended = false;
    }
    ran_dry(fw, ended);
}

static void segment_done(fw_t *fw)
{
    const fw_segment_t *s = current(fw);
    bool end = (s->flags & FW_FLAG_END) != 0u;
    int64_t over = fw->tau - (int64_t)((uint64_t)fw->seg_ticks << 24);
    fw->queued_us -= fw->seg_ticks;
    fw->n_end -= end ? 1u : 0u;
    fw->power_start = s->power;
    fw->speed_before = s->speed;
    fw->tail++;
    board_trace(fw->board, FW_T_SEGMENT_END, 0);
    next_segment(fw, over, end && (fw->tail == fw->head));
}

/* A segment ends or a slice ends at this instant, perhaps both. */
void fw_play_events(fw_t *fw)
{
    /* bounded by the queue: each turn takes a segment out */
    while (fw->playing && (fw->seg_end == fw->now)) {
        segment_done(fw);
        fw_gate_update(fw);
    }
    if (!fw->playing || (since_slice(fw) < fw->slice_len)) {
        return;
    }
    slice_cut(fw);
    if (fw->hold && (fw->scale <= 0)) {
        fw_play_stop(fw);
        fw_at_rest(fw);
        return;
    }
    if (fw->suppress && !fw->hold && (fw->scale == fw->set)) {
        fw->suppress = false;
    }
    if (fw->moved || !fw->gate || ((current(fw)->flags & FW_FLAG_DWELL) != 0u)) {
        fw->moved_us = fw->now;
    }
    fw->moved = false;
    if (fw->gate && (fw->now - fw->moved_us >= STILL_US)) {
        fw_fault(fw, FW_STILL);
    }
    uint64_t left = fw->queued_us - ((uint64_t)fw->tau >> 24);
    if (!fw->hold && (fw->n_end == 0u) && (left < fw->config.stop_need_us) &&
        (fw_queue_count(fw) < FW_QUEUE / 2u)) {
        fw_hold(fw, 3);
    }
    slice_begin(fw);
}

/* Hold, its end, a fault or an override at this instant. */
void fw_play_replan(fw_t *fw)
{
    if (fw->playing) {
        slice_cut(fw);
        slice_begin(fw);
    }
}

/* Standing still within a segment. */
void fw_play_stop(fw_t *fw)
{
    fw->scale = 0;
    fw->delta = 0;
    fw->slice_t = fw->now;
    fw->slice_len = 1;
    fw->seg_end = FW_NEVER;
}

bool fw_enough_to_start(const fw_t *fw)
{
    uint64_t left = fw->queued_us - (fw->playing ? ((uint64_t)fw->tau >> 24) : 0u);
    uint32_t count = fw_queue_count(fw);
    return (count > 0u) && ((fw->n_end > 0u) || (count >= FW_QUEUE / 2u) ||
                            (left >= 2u * (uint64_t)fw->config.stop_need_us));
}

/* From rest: the queue's first segment, or the one in which a hold stopped. */
void fw_play_start(fw_t *fw)
{
    bool fresh = !fw->playing;
    fw->slice_t = fw->now;
    fw->slice_len = 1;
    fw->delta = 0;
    fw->moved_us = fw->now;
    if (fresh) {
        fw->scale = fw->set;
        next_segment(fw, 0, true);
    }
    if (fw->playing) {
        slice_begin(fw);
    }
}
