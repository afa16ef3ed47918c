/* What the core asks of a board. Each port writes these few functions. */
#ifndef LMD_BOARD_H
#define LMD_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#define BOARD_IN_INTERLOCK 0u /* hardware interlock permits emission */
#define BOARD_IN_SWITCH 1u    /* home switch of axis k is input 1 + k */
#define BOARD_IN_LIMIT_LOW 7u /* limit switch at the low end of axis k is input 7 + k ... */
#define BOARD_IN_LIMIT_HIGH 13u /* ... and at the high end 13 + k */
#define BOARD_IN_PROBE 19u
#define BOARD_IN_FOLLOWING 20u /* a drive reports following error */
#define BOARD_INPUTS 21u

/* Kinds of trace rows and of event records (the same numbers). */
enum {
    FW_T_GATE = 1,
    FW_T_SEGMENT_END = 2,
    FW_T_ARMED = 3,
    FW_T_STATE = 4,
    FW_T_FAULT = 5,
    FW_T_TRACK_START = 6,
    FW_T_BEAT = 7,
    FW_T_FAULT_RESET = 8,
    FW_T_HOLD = 9,
    FW_T_REFUSED = 10,
    FW_T_LOST = 11,
    FW_T_HOMED = 12,
    FW_T_POWER_UP = 13,
    FW_T_PROBED = 14,
    FW_T_PROBE_MISSED = 15
};

/* Make `steps` steps (sign: direction) of one axis before the next call of fw_run. */
void board_step(void *board, uint32_t axis, int32_t steps);
void board_gate(void *board, bool on);
void board_power(void *board, uint16_t power); /* 1/65535 of full scale */
/* Logical level: true is closed, or reported. Not wired: false. */
bool board_input(void *board, uint32_t input);
/* Counts of an axis' encoder since power-up, modulo 2^32; asked only where configured. */
uint32_t board_encoder(void *board, uint32_t axis);
void board_tx(void *board, const uint8_t *bytes, uint32_t n);
/* Something happened now; may do nothing. */
void board_trace(void *board, uint32_t kind, int32_t arg);

#endif
