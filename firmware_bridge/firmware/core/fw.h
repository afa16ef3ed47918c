/* Reference motion firmware, portable core. Protocol: docs/protocol.md.
 *
 * No allocation, no recursion, no floating point. All functions of one fw_t are called from
 * one context (on a microcontroller: one interrupt priority). Time is handed in: fw_run()
 * carries the state to an instant, fw_rx() takes bytes that arrived at the present one.
 */
#ifndef LMD_FW_H
#define LMD_FW_H

#include <stdbool.h>
#include <stdint.h>

#include "board.h"

#define FW_PROTOCOL 1u
#define FW_VERSION 0x00010100u /* major 16 bits, minor 8, patch 8 */
#define FW_AXES 6u
#ifndef FW_QUEUE
#define FW_QUEUE 2048u /* segments of 24 bytes; a power of two, at least 1024 */
#endif
#ifndef FW_RX_WINDOW
#define FW_RX_WINDOW 4096u /* bytes that a port can take while the core is busy */
#endif
#define FW_EVENTS 64u
#define FW_MAX_PAYLOAD 512u
#define FW_OVERHEAD 12u
#define FW_RX_SIZE 1536u
#define FW_SEGMENT_SIZE 22u
#define FW_NEVER UINT64_MAX
#define FW_SCALE_ONE (1 << 24) /* time scale 1.0 */
#define FW_LAWS 3u             /* power laws beside the linear one */
#define FW_LAW_POINTS 17u
#define FW_MOST_CAP 0xFFFFFu /* 1/65535 of full scale */

#define FW_FLAG_GATE 0x01u
#define FW_FLAG_DWELL 0x02u
#define FW_FLAG_TRACK_START 0x04u
#define FW_FLAG_PARAM 0x08u
#define FW_FLAG_END 0x10u

enum { FW_IDLE, FW_HOMING, FW_RUNNING, FW_HOLDING, FW_HELD, FW_FAULTED, FW_JOGGING, FW_PROBING };

enum { FW_PROBE_NONE, FW_PROBE_UNDER_WAY, FW_PROBE_FOUND, FW_PROBE_MISSED, FW_PROBE_ENDED };

enum {
    FW_OK = 0,
    FW_BEAT_LOST = 1,
    FW_INTERLOCK_LOST = 2,
    FW_UNDERRUN = 3,
    FW_MAX_ON_TIME = 4,
    FW_STILL = 5,
    FW_HOST_ABORT = 6,
    FW_HOMING_FAILED = 7,
    FW_LIMIT_SWITCH = 8,
    FW_FOLLOWING_ERROR = 9,
    FW_LOST_STEPS = 10
};

enum { /* reasons of NAK */
    FW_NAK_SEQUENCE = 1,
    FW_NAK_FULL = 2,
    FW_NAK_STATE = 16,
    FW_NAK_NONCE = 17,
    FW_NAK_SESSION = 18,
    FW_NAK_CONFIG = 19,
    FW_NAK_NOT_HOMED = 20,
    FW_NAK_INTERLOCK = 21,
    FW_NAK_FAULT = 22,
    FW_NAK_NO_BEAT = 23,
    FW_NAK_STALE = 24,
    FW_NAK_BAD_SEGMENT = 25,
    FW_NAK_INDEX = 26,
    FW_NAK_RANGE = 27,
    FW_NAK_BUSY = 28,
    FW_NAK_NOT_ARMED = 29,
    FW_NAK_TRAVEL = 30,
    FW_NAK_LOW = 31,
    FW_NAK_INPUT = 32
};

typedef struct {
    uint32_t milli_steps_mm;
    uint32_t speed;  /* step/s, greatest */
    uint32_t accel;  /* step/s2, greatest */
    int32_t min;     /* steps */
    int32_t max;     /* steps */
    int32_t encoder; /* counts in 65536 steps, 0: none */
    uint32_t lost;   /* steps that may be lost */
    uint32_t jog_dv; /* step/s a ms: so that all axes together keep the total acceleration */
} fw_axis_t;

typedef struct {
    uint32_t n_axes;
    uint32_t heartbeat_us;
    uint32_t plan_share; /* Q15 */
    uint32_t homing_um_s;
    uint32_t total_accel_um_s2;
    uint64_t max_on_us;
    uint32_t limits; /* limit switches in use: bit k at the low end, bit 8 + k at the high end */
    bool following;  /* following-error input in use */
    bool probe;      /* probe input in use */
    uint32_t hash;
    uint32_t stop_need_us; /* scaled time that any stop takes */
    uint32_t override_max; /* Q15, 1/sqrt(plan_share) */
    fw_axis_t axis[FW_AXES];
} fw_config_t;

typedef struct {
    int16_t d[FW_AXES];
    uint16_t ratio; /* Q15 */
    uint16_t power;
    uint16_t speed; /* Q15 of nominal */
    uint16_t ticks_lo;
    uint8_t ticks_hi;
    uint8_t flags;
    uint16_t w; /* mean speed / acceleration, the worst, in 16 us */
} fw_segment_t;

typedef struct {
    uint64_t t_us;
    int32_t arg;
    int32_t segment;
    uint16_t code;
} fw_event_t;

typedef struct {
    uint32_t n;               /* 0: not set */
    int32_t x[FW_LAW_POINTS]; /* log2 of speed / nominal, Q20, increasing */
    int32_t y[FW_LAW_POINTS]; /* log2 of g, Q20 */
} fw_law_t;

typedef struct {
    void *board;
    fw_config_t config;
    uint64_t now;
    uint32_t boot_nonce;

    /* outputs and guards */
    uint32_t state;
    uint32_t fault;
    bool armed;
    bool gate;
    bool homed;
    bool interlock;
    bool suppress;     /* gate shut until the time scale is back */
    bool hold;         /* decelerate, stay */
    bool hold_pending; /* HOLD waits for the end of the track */
    uint16_t power;
    uint64_t gate_on_us;
    uint64_t beat_us; /* FW_NEVER: none yet */
    uint64_t moved_us;
    bool moved;
    int32_t pos[FW_AXES];

    /* power law */
    uint32_t power_floor;
    uint32_t least_override; /* Q15 */
    uint32_t trim;           /* Q15 */
    uint64_t trim_us;
    uint32_t law;            /* in force, 0: linear */
    uint32_t cap;            /* power at nominal speed that the energy cap allows, 0: none */
    uint32_t speed_start;    /* Q15 of nominal, at the segment's start */
    uint32_t speed_before;   /* the same at the end of the segment before */
    fw_law_t laws[FW_LAWS];

    /* sessions and numbers */
    uint32_t session;
    uint32_t counter;
    uint32_t armed_session;
    uint32_t next_seq;
    uint32_t urgent;
    uint32_t tx_count;
    bool ack_due;
    bool nak_open; /* a gap was reported and is not closed */
    uint64_t nak_us;

    /* queue; head and tail count without end, the segment being played is at tail */
    uint32_t head;
    uint32_t tail;
    uint32_t n_end;        /* segments with END in the queue */
    uint32_t next_index;   /* index due */
    uint64_t queued_us;    /* durations in the queue, the one being played whole */
    int64_t planned[FW_AXES];
    uint32_t speed_share;  /* Q15: greatest speed / limit of all segments since FLUSH */

    /* player */
    bool playing; /* a segment is under way */
    uint32_t index; /* of the segment under way, or of the last one */
    uint32_t tracks;
    uint32_t seg_ticks;
    uint32_t power_start;
    int32_t base[FW_AXES];
    uint64_t seg_end;  /* instant at which it ends, FW_NEVER if after this slice */
    uint64_t slice_t;  /* control slice: scale runs from `scale` by `delta` over `slice_len` */
    uint32_t slice_len;
    int32_t scale; /* Q24 */
    int32_t delta; /* Q24 */
    int32_t set;   /* Q24, what OVERRIDE asks */
    int64_t tau;   /* Q24 us into the segment at slice_t */
    uint32_t x;    /* Q30, part of the segment's time that has passed */

    /* homing */
    uint32_t home_axis;
    uint32_t home_phase;
    uint32_t home_speed; /* step/s now */
    bool home_stop;
    uint64_t home_frac; /* 1e-6 steps */
    uint64_t home_made; /* steps of this axis and phase */
    uint64_t home_done; /* steps of this slice */

    /* jog and probe: speeds change on whole ms */
    bool jogging;                 /* an axis moves so, or may */
    int32_t jog_v[FW_AXES];       /* step/s, this slice */
    int32_t jog_goal[FW_AXES];    /* step/s */
    int64_t jog_part[FW_AXES];    /* 1e-6 steps from pos at the slice's start, 0 to 999999 */
    int64_t jog_done[FW_AXES];    /* steps of this slice */
    uint64_t jog_us;              /* last JOG that counted */
    uint64_t jog_nak_us;
    bool jog_nak_open;
    uint32_t probe_result;
    uint32_t probe_axis;
    int32_t probe_target;
    int32_t probe_pos;

    /* encoders: counts and position at which both were the same */
    uint32_t encoder_zero[FW_AXES];
    int32_t encoder_pos[FW_AXES];

    uint64_t status_due;

    /* event log */
    fw_event_t event[FW_EVENTS];
    uint32_t event_head;
    uint32_t event_tail;
    uint32_t events_lost;

    /* receiver */
    uint8_t rx[FW_RX_SIZE];
    uint32_t rx_n;
    uint64_t rx_us;
    uint32_t rx_bad; /* bytes that were no frame */

    fw_segment_t queue[FW_QUEUE];
} fw_t;

/* False when the configuration blob is wrong (docs/protocol.md, section 8). */
bool fw_init(fw_t *fw, void *board, const uint8_t *config, uint32_t n, uint32_t boot_nonce);
/* To the next instant at which something happens, at most to `until`. */
void fw_step(fw_t *fw, uint64_t until);
/* To `until`. */
void fw_run(fw_t *fw, uint64_t until);
/* Bytes that arrived now. */
void fw_rx(fw_t *fw, const uint8_t *bytes, uint32_t n);
/* An input changed: looks at the guards at once. */
void fw_inputs(fw_t *fw);

#endif
