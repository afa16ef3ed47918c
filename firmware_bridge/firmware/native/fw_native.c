/* Native board: counts steps, records edges, hands out samples each ms. */
#include "fw_native.h"

#include <stdlib.h>
#include <string.h>

#include "fw.h"

#define TX_SIZE 65536u
#define N_ROWS 8192u
#define ROWS_SPARE 4096u /* more than one instant can make: a queue of PARAM records */
#define N_SAMPLES 4096u
#define MS 1000u

_Static_assert(sizeof(fw_row_t) == 48, "row");
_Static_assert(sizeof(fw_sample_t) == 48, "sample");

/* An input that closes where an axis is at `steps` or beyond, seen along `sign`. */
typedef struct {
    uint32_t axis;
    int32_t steps;
    int32_t sign; /* 0: none there */
} sensor_t;

typedef struct {
    fw_t fw;
    int64_t place[FW_AXES]; /* true distance from the home switch */
    bool input[BOARD_INPUTS]; /* set from outside */
    sensor_t sensor[BOARD_INPUTS];
    bool gate;
    uint16_t power;
    uint32_t n_tx;
    uint32_t n_rows;
    uint32_t n_samples;
    uint8_t tx[TX_SIZE];
    fw_row_t row[N_ROWS];
    fw_sample_t sample[N_SAMPLES];
} native_t;

void board_step(void *board, uint32_t axis, int32_t steps)
{
    ((native_t *)board)->place[axis] += steps;
}

void board_gate(void *board, bool on)
{
    ((native_t *)board)->gate = on;
}

void board_power(void *board, uint16_t power)
{
    ((native_t *)board)->power = power;
}

bool board_input(void *board, uint32_t input)
{
    const native_t *b = (const native_t *)board;
    const sensor_t *s = &b->sensor[input];
    bool sensed = (s->sign != 0) && ((b->place[s->axis] - s->steps) * s->sign >= 0);
    return b->input[input] || sensed;
}

uint32_t board_encoder(void *board, uint32_t axis)
{
    const native_t *b = (const native_t *)board;
    int64_t counts = (b->place[axis] * b->fw.config.axis[axis].encoder) / 65536;
    return (uint32_t)((uint64_t)counts & 0xFFFFFFFFu);
}

void board_tx(void *board, const uint8_t *bytes, uint32_t n)
{
    native_t *b = (native_t *)board;
    if (b->n_tx + n <= TX_SIZE) { /* a line that nobody reads loses bytes */
        (void)memcpy(&b->tx[b->n_tx], bytes, n);
        b->n_tx += n;
    }
}

void board_trace(void *board, uint32_t kind, int32_t arg)
{
    native_t *b = (native_t *)board;
    bool told = (kind <= (uint32_t)FW_T_HOLD) || (kind == (uint32_t)FW_T_PROBED) ||
                (kind == (uint32_t)FW_T_PROBE_MISSED);
    if (!told || (b->n_rows >= N_ROWS)) {
        return;
    }
    fw_row_t *r = &b->row[b->n_rows];
    r->t_us = b->fw.now;
    r->kind = kind;
    r->arg = arg;
    r->segment = b->fw.index;
    r->power = b->power;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        r->pos[k] = b->fw.pos[k];
    }
    b->n_rows++;
}

static void take_sample(native_t *b)
{
    const fw_t *fw = &b->fw;
    fw_sample_t *s = &b->sample[b->n_samples];
    uint64_t age = (fw->beat_us == FW_NEVER) ? UINT32_MAX : fw->now - fw->beat_us;
    s->t_us = fw->now;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        s->pos[k] = fw->pos[k];
    }
    s->power = b->power;
    s->gate = b->gate ? 1u : 0u;
    s->armed = fw->armed ? 1u : 0u;
    s->state = (uint16_t)fw->state;
    s->fault = (uint16_t)fw->fault;
    s->segment = fw->index;
    s->beat_age_us = (age > UINT32_MAX) ? UINT32_MAX : (uint32_t)age;
    b->n_samples++;
}

void *fw_native_new(const uint8_t *config, uint32_t n, uint32_t boot_nonce)
{
    native_t *b = calloc(1, sizeof(native_t));
    if (b == NULL) {
        return NULL;
    }
    for (uint32_t k = 0; k < FW_AXES; k++) {
        b->place[k] = 1000; /* somewhere off the switch */
        b->sensor[BOARD_IN_SWITCH + k] = (sensor_t){.axis = k, .steps = 0, .sign = -1};
    }
    if (!fw_init(&b->fw, b, config, n, boot_nonce)) {
        free(b);
        return NULL;
    }
    return b;
}

void fw_native_free(void *handle)
{
    free(handle);
}

void fw_native_rx(void *handle, const uint8_t *bytes, uint32_t n)
{
    fw_rx(&((native_t *)handle)->fw, bytes, n);
}

uint64_t fw_native_run(void *handle, uint64_t until_us)
{
    native_t *b = (native_t *)handle;
    fw_t *fw = &b->fw;
    while ((fw->now < until_us) && (b->n_tx == 0u) && (b->n_samples < N_SAMPLES) &&
           (b->n_rows < N_ROWS - ROWS_SPARE)) {
        uint64_t ms = (fw->now / MS + 1u) * MS;
        fw_step(fw, (ms < until_us) ? ms : until_us);
        if (fw->now % MS == 0u) {
            take_sample(b);
        }
    }
    return fw->now;
}

static uint32_t take(void *to, void *from, uint32_t *n, uint32_t cap, size_t size)
{
    uint32_t count = (*n < cap) ? *n : cap;
    (void)memcpy(to, from, count * size);
    *n -= count;
    (void)memmove(from, (uint8_t *)from + count * size, *n * size);
    return count;
}

uint32_t fw_native_tx(void *handle, uint8_t *buf, uint32_t cap)
{
    native_t *b = (native_t *)handle;
    return take(buf, b->tx, &b->n_tx, cap, 1);
}

uint32_t fw_native_rows(void *handle, fw_row_t *rows, uint32_t cap)
{
    native_t *b = (native_t *)handle;
    return take(rows, b->row, &b->n_rows, cap, sizeof(fw_row_t));
}

uint32_t fw_native_samples(void *handle, fw_sample_t *samples, uint32_t cap)
{
    native_t *b = (native_t *)handle;
    return take(samples, b->sample, &b->n_samples, cap, sizeof(fw_sample_t));
}

void fw_native_input(void *handle, uint32_t input, uint32_t value)
{
    native_t *b = (native_t *)handle;
    if (input < BOARD_INPUTS) {
        b->input[input] = value != 0u;
        fw_inputs(&b->fw);
    }
}

void fw_native_sensor(void *handle, uint32_t input, uint32_t axis, int32_t steps, int32_t sign)
{
    if ((input < BOARD_INPUTS) && (axis < FW_AXES)) {
        ((native_t *)handle)->sensor[input] =
            (sensor_t){.axis = axis, .steps = steps, .sign = sign};
    }
}

void fw_native_place(void *handle, uint32_t axis, int32_t steps)
{
    if (axis < FW_AXES) {
        ((native_t *)handle)->place[axis] = steps;
    }
}
