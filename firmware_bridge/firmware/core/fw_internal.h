/* Between the files of the core. */
#ifndef LMD_FW_INTERNAL_H
#define LMD_FW_INTERNAL_H

#include "fw.h"

/* Frame types */
enum {
    FW_HELLO = 0x01,
    FW_SEGMENTS = 0x02,
    FW_BEAT = 0x03,
    FW_ARM = 0x04,
    FW_DISARM = 0x05,
    FW_HOLD = 0x06,
    FW_HOLD_NOW = 0x07,
    FW_UNHOLD = 0x08,
    FW_ABORT = 0x09,
    FW_RESET = 0x0A,
    FW_OVERRIDE = 0x0B,
    FW_TRIM = 0x0C,
    FW_HOME = 0x0D,
    FW_FLUSH = 0x0E,
    FW_JOG = 0x0F,
    FW_PROBE = 0x10,
    FW_LAW = 0x11,
    FW_HELLO_ACK = 0x81,
    FW_ACK = 0x82,
    FW_NAK = 0x83,
    FW_STATUS = 0x84,
    FW_EVENT = 0x85
};

/* fw_util.c */
uint32_t fw_crc32(const uint8_t *bytes, uint32_t n);
uint16_t fw_u16(const uint8_t *p);
uint32_t fw_u32(const uint8_t *p);
int32_t fw_i32(const uint8_t *p);
uint8_t *fw_put16(uint8_t *p, uint32_t v);
uint8_t *fw_put32(uint8_t *p, uint32_t v);
uint8_t *fw_put64(uint8_t *p, uint64_t v);
uint32_t fw_isqrt(uint64_t v);
bool fw_config_read(fw_config_t *c, const uint8_t *p, uint32_t n);

/* fw_queue.c: FW_OK or a reason of NAK */
uint32_t fw_queue_take(fw_t *fw, const uint8_t *p, uint32_t n);
void fw_queue_clear(fw_t *fw, uint32_t next_index);
uint32_t fw_queue_count(const fw_t *fw);
uint32_t fw_queue_free(const fw_t *fw);
uint32_t fw_ticks(const fw_segment_t *s);

/* fw_player.c */
void fw_play_start(fw_t *fw);
void fw_play_to_now(fw_t *fw);
void fw_play_events(fw_t *fw);
void fw_play_replan(fw_t *fw);
void fw_play_stop(fw_t *fw);
bool fw_enough_to_start(const fw_t *fw);

/* fw_home.c */
void fw_home_start(fw_t *fw);
void fw_home_to_now(fw_t *fw);
void fw_home_events(fw_t *fw);
int32_t fw_home_direction(const fw_t *fw);

/* fw_jog.c: FW_OK or a reason of NAK */
uint32_t fw_jog(fw_t *fw, const uint8_t *speeds);
uint32_t fw_probe(fw_t *fw, const uint8_t *p);
void fw_jog_stop(fw_t *fw);
void fw_jog_to_now(fw_t *fw);
void fw_jog_events(fw_t *fw);
void fw_probe_look(fw_t *fw);

/* fw_law.c */
uint32_t fw_law_take(fw_t *fw, const uint8_t *p);
bool fw_law_known(const fw_t *fw, uint32_t law);
int64_t fw_law_scaled(const fw_t *fw, int64_t power, int32_t scale);
void fw_law_segment(fw_t *fw, const fw_segment_t *s);
uint32_t fw_param_cap(const fw_segment_t *s);

/* fw_watch.c */
void fw_watch(fw_t *fw);
bool fw_limit_closed(const fw_t *fw, uint32_t axis, bool high);
bool fw_input_in_the_way(const fw_t *fw);
void fw_encoder_mark(fw_t *fw, uint32_t axis);
int32_t fw_encoder_lost(const fw_t *fw, uint32_t axis);
int32_t fw_direction(const fw_t *fw, uint32_t axis);

/* fw_core.c */
void fw_set_state(fw_t *fw, uint32_t state);
void fw_set_armed(fw_t *fw, bool armed);
void fw_fault(fw_t *fw, uint32_t fault);
void fw_gate_update(fw_t *fw);
void fw_power_set(fw_t *fw, uint16_t power);
void fw_hold(fw_t *fw, int32_t kind);
void fw_at_rest(fw_t *fw);
bool fw_resting(const fw_t *fw);
bool fw_moving(const fw_t *fw);
bool fw_beat_fresh(const fw_t *fw);

/* fw_command.c */
void fw_command(fw_t *fw, uint32_t type, uint32_t number, const uint8_t *p, uint32_t n);
void fw_start_if_ready(fw_t *fw);

/* fw_tx.c */
void fw_send_ack(fw_t *fw);
void fw_send_nak(fw_t *fw, uint32_t reason, uint32_t type, uint32_t number);
void fw_send_hello(fw_t *fw);
void fw_log(fw_t *fw, uint32_t code, int32_t arg);
void fw_send_events(fw_t *fw);
void fw_send_status(fw_t *fw);

#endif
