/* The firmware core as a shared library: device time is simulated, one board per handle. */
#ifndef LMD_FW_NATIVE_H
#define LMD_FW_NATIVE_H

#include <stdint.h>

typedef struct {
    uint64_t t_us;
    uint32_t kind; /* board.h: FW_T_GATE .. FW_T_HOLD, and the probe */
    int32_t arg;
    uint32_t segment; /* index of the segment under way, or of the last one */
    uint32_t power;   /* 1/65535 */
    int32_t pos[6];   /* steps */
} fw_row_t;           /* 48 bytes, no padding */

typedef struct {
    uint64_t t_us; /* whole ms */
    int32_t pos[6];
    uint16_t power;
    uint8_t gate;
    uint8_t armed;
    uint16_t state;
    uint16_t fault;
    uint32_t segment;
    uint32_t beat_age_us; /* saturated, UINT32_MAX none yet */
} fw_sample_t;            /* 48 bytes, no padding */

/* NULL when the configuration is wrong. The only allocation. */
void *fw_native_new(const uint8_t *config, uint32_t n, uint32_t boot_nonce);
void fw_native_free(void *handle);
/* Bytes that arrive at the present device time. */
void fw_native_rx(void *handle, const uint8_t *bytes, uint32_t n);
/* Runs to until_us; returns early at the instant at which bytes to send appeared (at once
 * when some wait already) or when rows or samples must be fetched first. Returns the time. */
uint64_t fw_native_run(void *handle, uint64_t until_us);
uint32_t fw_native_tx(void *handle, uint8_t *buf, uint32_t cap);
uint32_t fw_native_rows(void *handle, fw_row_t *rows, uint32_t cap);
uint32_t fw_native_samples(void *handle, fw_sample_t *samples, uint32_t cap);
/* Inputs by their numbers in board.h; 0: hardware interlock permits emission. */
void fw_native_input(void *handle, uint32_t input, uint32_t value);
/* The input closes where an axis is `steps` from its home switch or beyond, seen along `sign`
 * (1, -1); sign 0 takes it away. */
void fw_native_sensor(void *handle, uint32_t input, uint32_t axis, int32_t steps, int32_t sign);
/* True distance of an axis from its home switch, steps; the switch is closed at 0 and below. */
void fw_native_place(void *handle, uint32_t axis, int32_t steps);

#endif
