/* The segment queue: what may enter it. */
#include "fw_internal.h"

#define STILL_US 50000u

uint32_t fw_ticks(const fw_segment_t *s)
{
    return (uint32_t)s->ticks_lo | ((uint32_t)s->ticks_hi << 16);
}

uint32_t fw_queue_count(const fw_t *fw)
{
    return fw->head - fw->tail;
}

uint32_t fw_queue_free(const fw_t *fw)
{
    return FW_QUEUE - fw_queue_count(fw);
}

void fw_queue_clear(fw_t *fw, uint32_t next_index)
{
    fw->tail = fw->head;
    fw->n_end = 0;
    fw->queued_us = 0;
    fw->next_index = next_index;
    fw->index = next_index - 1u;
    fw->power_start = 0;
    fw->speed_before = 0;
    fw->speed_share = 0;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        fw->planned[k] = fw->pos[k];
    }
}

static int16_t read_i16(const uint8_t *p)
{
    int32_t v = (int32_t)fw_u16(p);
    return (int16_t)((v < 32768) ? v : v - 65536);
}

static uint32_t magnitude(int16_t d)
{
    return (uint32_t)((d < 0) ? -(int32_t)d : (int32_t)d);
}

/* Speed / acceleration of the mean speed, the worst of axes and of the path, in 16 us. */
static uint16_t time_constant(const fw_config_t *c, const fw_segment_t *s, uint32_t ticks)
{
    uint64_t w = 0;
    uint64_t square = 0; /* nm^2; each addend below 2.8e18 by the least steps per mm */
    for (uint32_t k = 0; k < c->n_axes; k++) {
        uint64_t d = magnitude(s->d[k]);
        if (d != 0u) {
            uint64_t w_axis = (d * 62500000000u) / ((uint64_t)ticks * c->axis[k].accel) + 1u;
            w = (w_axis > w) ? w_axis : w;
            if (k < 3u) {
                uint64_t nm = (d * 1000000000u) / c->axis[k].milli_steps_mm;
                square += nm * nm;
            }
        }
    }
    if (square != 0u) {
        uint64_t nm = (uint64_t)fw_isqrt(square) + 1u;
        uint64_t w_path = (nm * 62500000u) / ((uint64_t)ticks * c->total_accel_um_s2) + 1u;
        w = (w_path > w) ? w_path : w;
    }
    return (uint16_t)((w > 65535u) ? 65535u : w);
}

/* A PARAM record: the places of the steps hold law and cap. */
static uint32_t check_param(const fw_t *fw, const fw_segment_t *s)
{
    bool plain = (s->flags == FW_FLAG_PARAM) && (fw_ticks(s) == 0u) && (s->d[3] == 0) &&
                 (s->d[4] == 0) && (s->d[5] == 0);
    bool law = (s->d[0] >= 0) && fw_law_known(fw, (uint32_t)s->d[0]);
    return (plain && law && (fw_param_cap(s) <= FW_MOST_CAP)) ? FW_OK : FW_NAK_BAD_SEGMENT;
}

static uint32_t check(fw_t *fw, const fw_segment_t *s, int64_t *planned)
{
    const fw_config_t *c = &fw->config;
    uint32_t ticks = fw_ticks(s);
    bool steps = false;
    if ((s->flags & FW_FLAG_PARAM) != 0u) {
        return check_param(fw, s);
    }
    for (uint32_t k = 0; k < FW_AXES; k++) {
        steps = steps || (s->d[k] != 0);
        if ((k >= c->n_axes) && (s->d[k] != 0)) {
            return FW_NAK_BAD_SEGMENT;
        }
    }
    if ((ticks == 0u) || (s->flags > 0x1Fu) || (((s->flags & FW_FLAG_DWELL) != 0u) && steps)) {
        return FW_NAK_BAD_SEGMENT;
    }
    if (((s->flags & (FW_FLAG_GATE | FW_FLAG_DWELL)) == FW_FLAG_GATE) && !steps &&
        (ticks > STILL_US)) {
        return FW_NAK_BAD_SEGMENT;
    }
    uint64_t peak = (s->ratio > 32768u) ? s->ratio : 65536u - (uint64_t)s->ratio;
    for (uint32_t k = 0; k < c->n_axes; k++) {
        uint64_t d = magnitude(s->d[k]);
        if (d > 1u) {
            /* one step of rounding and 2 % are free */
            uint64_t speed = (((d - 1u) * peak) * 1000000u) / ticks; /* Q15 step/s */
            if (speed > (((uint64_t)c->axis[k].speed * 32768u) / 50u) * 51u) {
                return FW_NAK_BAD_SEGMENT;
            }
            uint32_t share = (uint32_t)(speed / c->axis[k].speed);
            fw->speed_share = (share > fw->speed_share) ? share : fw->speed_share;
        }
        planned[k] += s->d[k];
        if (((planned[k] > c->axis[k].max) && (s->d[k] > 0)) ||
            ((planned[k] < c->axis[k].min) && (s->d[k] < 0))) {
            return FW_NAK_TRAVEL;
        }
    }
    return FW_OK;
}

static void read_segment(fw_segment_t *s, const uint8_t *q)
{
    for (uint32_t k = 0; k < FW_AXES; k++) {
        s->d[k] = read_i16(&q[2u * k]);
    }
    s->ratio = fw_u16(&q[12]);
    s->power = fw_u16(&q[14]);
    s->speed = fw_u16(&q[16]);
    s->ticks_lo = fw_u16(&q[18]);
    s->ticks_hi = q[20];
    s->flags = q[21];
}

uint32_t fw_queue_take(fw_t *fw, const uint8_t *p, uint32_t n)
{
    uint32_t count = (n - 4u) / FW_SEGMENT_SIZE;
    if (fw->fault != FW_OK) {
        return FW_NAK_FAULT;
    }
    if (!fw->homed) {
        return FW_NAK_NOT_HOMED;
    }
    if (fw_u32(p) != fw->next_index) {
        return FW_NAK_INDEX;
    }
    int64_t planned[FW_AXES];
    uint64_t us = 0;
    uint32_t n_end = 0;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        planned[k] = fw->planned[k];
    }
    /* written behind the head, counted only when all of them are right */
    for (uint32_t i = 0; i < count; i++) {
        fw_segment_t *s = &fw->queue[(fw->head + i) & (FW_QUEUE - 1u)];
        read_segment(s, &p[4u + i * FW_SEGMENT_SIZE]);
        uint32_t reason = check(fw, s, planned);
        if (reason != FW_OK) {
            return reason;
        }
        uint32_t ticks = fw_ticks(s);
        s->w = (ticks == 0u) ? (uint16_t)0 : time_constant(&fw->config, s, ticks);
        us += ticks;
        n_end += ((s->flags & FW_FLAG_END) != 0u) ? 1u : 0u;
    }
    for (uint32_t k = 0; k < FW_AXES; k++) {
        fw->planned[k] = planned[k];
    }
    fw->head += count;
    fw->next_index += count;
    fw->queued_us += us;
    fw->n_end += n_end;
    if ((fw->set > FW_SCALE_ONE) &&
        (((uint64_t)(uint32_t)fw->set * fw->speed_share) >> 24) > 33424u) {
        fw->set = FW_SCALE_ONE; /* override too fast for what has come: 1.02 * 32768 */
    }
    return FW_OK;
}
