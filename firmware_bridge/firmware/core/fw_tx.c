/* Frames to the host, and the event log. */
#include <string.h>

#include "fw_internal.h"

#define EVENT_SIZE 18u
#define EVENTS_A_FRAME 16u

static void send(fw_t *fw, uint32_t type, const uint8_t *payload, uint32_t n)
{
    uint8_t frame[EVENTS_A_FRAME * EVENT_SIZE + FW_OVERHEAD]; /* the longest */
    fw->tx_count++;
    frame[0] = 0xA5u;
    frame[1] = (uint8_t)type;
    (void)fw_put32(fw_put16(&frame[2], n), fw->tx_count);
    (void)memcpy(&frame[8], payload, n);
    (void)fw_put32(&frame[8u + n], fw_crc32(frame, 8u + n));
    board_tx(fw->board, frame, n + FW_OVERHEAD);
}

void fw_send_ack(fw_t *fw)
{
    uint8_t b[14];
    uint8_t *p = fw_put32(b, fw->next_seq);
    p = fw_put32(p, fw->next_index);
    p = fw_put16(p, fw_queue_free(fw));
    (void)fw_put32(p, fw->urgent);
    send(fw, FW_ACK, b, sizeof b);
}

void fw_send_nak(fw_t *fw, uint32_t reason, uint32_t type, uint32_t number)
{
    uint8_t b[14];
    b[0] = (uint8_t)reason;
    b[1] = (uint8_t)type;
    uint8_t *p = fw_put32(&b[2], number);
    p = fw_put32(p, fw->next_seq);
    (void)fw_put32(p, fw->next_index);
    send(fw, FW_NAK, b, sizeof b);
    if (reason >= (uint32_t)FW_NAK_STATE) {
        fw_log(fw, FW_T_REFUSED, (int32_t)reason);
    }
}

void fw_send_hello(fw_t *fw)
{
    uint8_t b[43];
    uint8_t *p = fw_put16(b, FW_PROTOCOL);
    p = fw_put16(p, FW_QUEUE);
    p = fw_put32(p, FW_VERSION);
    p = fw_put32(p, fw->boot_nonce);
    p = fw_put32(p, fw->config.hash);
    p = fw_put32(p, fw->next_seq);
    p = fw_put32(p, fw->next_index);
    p = fw_put32(p, fw->session);
    p = fw_put32(p, fw->urgent);
    *p = (uint8_t)fw->config.n_axes;
    p = fw_put64(p + 1, fw->now);
    (void)fw_put16(p, FW_RX_WINDOW);
    send(fw, FW_HELLO_ACK, b, sizeof b);
}

static uint32_t status_flags(const fw_t *fw)
{
    return (fw->armed ? 1u : 0u) | (fw->gate ? 2u : 0u) | (fw->interlock ? 4u : 0u) |
           (fw->homed ? 8u : 0u) | (fw->hold_pending ? 16u : 0u) | (fw->suppress ? 32u : 0u);
}

static uint32_t scale_now(const fw_t *fw)
{
    int64_t scale = fw->scale;
    if (fw_moving(fw)) { /* it runs linearly within the slice */
        int64_t dt = (int64_t)(fw->now - fw->slice_t);
        scale += ((int64_t)fw->delta * dt) / (int64_t)fw->slice_len;
    }
    scale >>= 9;
    return (scale > 65535) ? 65535u : (uint32_t)scale;
}

static uint32_t beat_age(const fw_t *fw)
{
    if (fw->beat_us == FW_NEVER) {
        return UINT32_MAX;
    }
    uint64_t us = fw->now - fw->beat_us;
    return (us < UINT32_MAX) ? (uint32_t)us : UINT32_MAX - 1u;
}

/* Bit k: input k of board.h; those that the configuration does not use are 0. */
static uint32_t inputs(const fw_t *fw)
{
    uint32_t bits = fw->interlock ? 1u : 0u;
    for (uint32_t k = 0; k < fw->config.n_axes; k++) {
        bits |= (board_input(fw->board, BOARD_IN_SWITCH + k) ? 1u : 0u) << (BOARD_IN_SWITCH + k);
        bits |= (fw_limit_closed(fw, k, false) ? 1u : 0u) << (BOARD_IN_LIMIT_LOW + k);
        bits |= (fw_limit_closed(fw, k, true) ? 1u : 0u) << (BOARD_IN_LIMIT_HIGH + k);
    }
    if (fw->config.probe && board_input(fw->board, BOARD_IN_PROBE)) {
        bits |= 1u << BOARD_IN_PROBE;
    }
    if (fw->config.following && board_input(fw->board, BOARD_IN_FOLLOWING)) {
        bits |= 1u << BOARD_IN_FOLLOWING;
    }
    return bits;
}

static uint8_t *put_positions(const fw_t *fw, uint8_t *at)
{
    uint8_t *p = at;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        p = fw_put32(p, (uint32_t)fw->pos[k]);
    }
    return p;
}

static void put_inputs(const fw_t *fw, uint8_t *at)
{
    uint8_t *p = fw_put32(at, inputs(fw));
    p[0] = (uint8_t)fw->probe_result;
    p[1] = (uint8_t)fw->probe_axis;
    p[2] = (uint8_t)fw->law;
    p[3] = 0;
    p = fw_put32(p + 4, (uint32_t)fw->probe_pos);
    for (uint32_t k = 0; k < FW_AXES; k++) {
        int32_t lost = fw_encoder_lost(fw, k);
        lost = (lost > 32767) ? 32767 : lost;
        lost = (lost < -32767) ? -32767 : lost;
        p = fw_put16(p, (uint32_t)lost & 0xFFFFu);
    }
}

void fw_send_status(fw_t *fw)
{
    uint8_t b[92];
    uint64_t tau = 0;
    if (fw->playing) { /* x is up to date */
        tau = ((uint64_t)fw->x * fw->seg_ticks + (1u << 29)) >> 30;
    }
    uint8_t *p = fw_put64(b, fw->now);
    *p = (uint8_t)fw->state;
    p[1] = (uint8_t)status_flags(fw);
    p = fw_put16(p + 2, fw->fault);
    p = fw_put32(p, fw->index);
    p = fw_put32(p, (uint32_t)tau);
    p = fw_put16(p, scale_now(fw));
    p = fw_put16(p, fw->power);
    p = put_positions(fw, p);
    p = fw_put16(p, fw_queue_count(fw));
    p = fw_put16(p, fw_queue_free(fw));
    p = fw_put32(p, fw->tracks);
    p = fw_put32(p, beat_age(fw));
    p = fw_put32(p, fw->next_seq);
    p = fw_put32(p, fw->next_index);
    put_inputs(fw, p);
    send(fw, FW_STATUS, b, sizeof b);
}

/* Into the event log, and to whoever traces. */
void fw_log(fw_t *fw, uint32_t code, int32_t arg)
{
    board_trace(fw->board, code, arg);
    if (fw->event_head - fw->event_tail >= FW_EVENTS) {
        fw->event_tail++;
        fw->events_lost++;
    }
    fw_event_t *e = &fw->event[fw->event_head % FW_EVENTS];
    e->t_us = fw->now;
    e->code = (uint16_t)code;
    e->arg = arg;
    e->segment = (int32_t)fw->index;
    fw->event_head++;
}

void fw_send_events(fw_t *fw)
{
    if (fw->events_lost > 0u) {
        int32_t lost = (int32_t)fw->events_lost;
        fw->event_tail++; /* its place is taken by the notice */
        fw->events_lost = 0;
        fw_log(fw, FW_T_LOST, lost + 1);
    }
    while (fw->event_tail != fw->event_head) {
        uint8_t b[EVENTS_A_FRAME * EVENT_SIZE];
        uint8_t *p = b;
        uint32_t n = 0;
        while ((fw->event_tail != fw->event_head) && (n < EVENTS_A_FRAME)) {
            const fw_event_t *e = &fw->event[fw->event_tail % FW_EVENTS];
            p = fw_put64(p, e->t_us);
            p = fw_put16(p, e->code);
            p = fw_put32(p, (uint32_t)e->arg);
            p = fw_put32(p, (uint32_t)e->segment);
            fw->event_tail++;
            n++;
        }
        send(fw, FW_EVENT, b, n * EVENT_SIZE);
    }
}
