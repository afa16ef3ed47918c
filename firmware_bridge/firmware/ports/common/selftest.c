/* Plays a long random job through the protocol in simulated time and hashes what came out.
 *
 * Host and board in one: frames are made here, the board functions take what the core does.
 * Nothing depends on the processor, so two ports that differ in one step differ in the hash.
 */
#include "selftest.h"

#include <string.h>

#include "fw_internal.h"
#include "port.h"

#define NONCE 0x1234ABCDu
#define FILL 480u /* segments kept queued: below half of the smallest queue */
#define JOB 5000u
#define BEAT_US 20000u
#define START_PLACE 700
#define PROBE_AXIS 2u
#define PROBE_PLACE 3000 /* steps at which the probe touches */

static fw_t fw;
static selftest_t result;
static uint32_t draw_state;
static int32_t place[FW_AXES];
static uint32_t inputs;
static uint32_t counter;
static uint32_t session;
static uint64_t next_beat;
static uint32_t sent;      /* segments */
static uint32_t end_index; /* segments wanted */
static uint32_t track_left;
static bool track_gate;
static uint32_t ms_sum;  /* selftest_clock() in the steps of this ms */
static uint64_t stride; /* fw_run is called at least so often, us; 0: not */
static uint8_t frame[FW_MAX_PAYLOAD + FW_OVERHEAD];

static void mix(uint64_t *hash, uint64_t v)
{
    *hash = (*hash ^ v) * 0x100000001B3u;
    *hash ^= *hash >> 29;
}

static void mix_output(uint32_t kind, uint64_t v)
{
    mix(&result.outputs, fw.now);
    mix(&result.outputs, ((uint64_t)kind << 56) ^ v);
}

void board_step(void *board, uint32_t axis, int32_t steps)
{
    (void)board;
    place[axis] += steps;
    result.steps += (uint32_t)((steps < 0) ? -steps : steps);
    mix_output(1, ((uint64_t)axis << 32) | (uint32_t)steps);
}

void board_gate(void *board, bool on)
{
    (void)board;
    result.edges++;
    mix_output(2, on ? 1u : 0u);
}

void board_power(void *board, uint16_t power)
{
    (void)board;
    mix_output(3, power);
}

bool board_input(void *board, uint32_t input)
{
    (void)board;
    bool at_home = false;
    if ((input >= BOARD_IN_SWITCH) && (input < BOARD_IN_SWITCH + FW_AXES)) {
        at_home = place[input - BOARD_IN_SWITCH] <= 0;
    }
    bool probe = (input == BOARD_IN_PROBE) && (place[PROBE_AXIS] >= PROBE_PLACE);
    return at_home || probe || (((inputs >> input) & 1u) != 0u);
}

uint32_t board_encoder(void *board, uint32_t axis)
{
    (void)board;
    return (uint32_t)place[axis];
}

void board_tx(void *board, const uint8_t *bytes, uint32_t n)
{
    (void)board;
    for (uint32_t i = 0; i < n; i++) {
        mix(&result.frames, bytes[i]);
    }
}

void board_trace(void *board, uint32_t kind, int32_t arg)
{
    (void)board;
    mix_output(4u + kind, (uint32_t)arg);
    if (kind == (uint32_t)FW_T_SEGMENT_END) {
        result.segments++;
    }
    if (kind == (uint32_t)FW_T_REFUSED) {
        result.refused++;
    }
}

/* xorshift32 (Marsaglia 2003) */
static uint32_t draw(uint32_t below)
{
    draw_state ^= draw_state << 13;
    draw_state ^= draw_state >> 17;
    draw_state ^= draw_state << 5;
    return draw_state % below;
}

static int32_t draw_signed(int32_t most)
{
    return (int32_t)draw(2u * (uint32_t)most + 1u) - most;
}

static void count(const char *what, uint32_t since)
{
    uint32_t took = selftest_clock() - since;
    uint32_t i = 0;
    while ((i < result.n_counts) && (strcmp(result.count[i].what, what) != 0)) {
        i++;
    }
    if (i == SELFTEST_COUNTS) {
        return;
    }
    if (i == result.n_counts) {
        result.n_counts++;
        result.count[i].what = what;
    }
    if (took > result.count[i].worst) {
        result.count[i].worst = took;
    }
}

static void run_to(uint64_t t)
{
    while (fw.now < t) {
        uint64_t until = ((stride != 0u) && (fw.now + stride < t)) ? fw.now + stride : t;
        uint32_t since = selftest_clock();
        fw_step(&fw, until);
        count("one step", since);
        ms_sum += selftest_clock() - since;
        if (fw.now % 1000u == 0u) {
            result.worst_ms = (ms_sum > result.worst_ms) ? ms_sum : result.worst_ms;
            ms_sum = 0;
        }
    }
}

static void send(const char *what, uint32_t type, uint32_t number, uint32_t n)
{
    frame[0] = 0xA5;
    frame[1] = (uint8_t)type;
    (void)fw_put32(fw_put16(&frame[2], n), number);
    (void)fw_put32(&frame[8u + n], fw_crc32(frame, 8u + n));
    uint32_t since = selftest_clock();
    fw_rx(&fw, frame, n + FW_OVERHEAD);
    count(what, since);
}

static void send_sequenced(uint32_t type, uint32_t n)
{
    send("any other frame", type, fw.next_seq, n);
}

static void send_urgent(uint32_t type)
{
    send("stop at once", type, fw.urgent + 1u, 0);
}

/* UNHOLD, RESET, HOME */
static void send_again(uint32_t type)
{
    (void)fw_put32(&frame[8], fw.urgent);
    send_sequenced(type, 4);
}

static void beat(void)
{
    counter++;
    uint8_t *p = fw_put32(&frame[8], NONCE);
    p = fw_put32(p, session);
    (void)fw_put32(p, counter);
    send("any other frame", FW_BEAT, 0, 12);
}

static void pass(uint64_t us)
{
    uint64_t until = fw.now + us;
    while (fw.now < until) {
        if (fw.now >= next_beat) {
            beat();
            next_beat = fw.now + BEAT_US;
        }
        run_to((next_beat < until) ? next_beat : until);
    }
}

static void arm_counted(const char *what)
{
    session++;
    counter = 0;
    uint8_t *p = fw_put32(&frame[8], NONCE);
    p = fw_put32(p, session);
    p = fw_put32(p, fw.config.hash);
    (void)fw_put32(p, fw.urgent);
    send(what, FW_ARM, fw.next_seq, 16);
}

static void arm(void)
{
    arm_counted("any other frame");
}

static void flush(void)
{
    (void)fw_put32(fw_put32(&frame[8], sent), fw.urgent);
    send_sequenced(FW_FLUSH, 8);
}

static void home(void)
{
    beat();
    send_again(FW_HOME);
    for (uint32_t i = 0; (i < 2000u) && (fw.state == (uint32_t)FW_HOMING); i++) {
        pass(BEAT_US);
    }
}

/* Three laws: a straight one, a bent one, one of all its points. */
static void laws(void)
{
    for (uint32_t law = 1; law <= FW_LAWS; law++) {
        uint32_t n = (law == 3u) ? FW_LAW_POINTS : law + 1u;
        (void)memset(&frame[8], 0, 104);
        frame[8] = (uint8_t)law;
        frame[9] = (uint8_t)n;
        for (uint32_t i = 0; i < n; i++) {
            uint8_t *p = fw_put16(&frame[10u + 6u * i], ((i + 1u) * 32768u) / n);
            (void)fw_put32(p, (i + 1u) * (i + 1u) * 50000u + law * 4000000u);
        }
        send_sequenced(FW_LAW, 104);
    }
}

/* All axes by hand, then a probe: what the queue does not do. */
static void by_hand(void)
{
    for (uint32_t i = 0; i < 100u; i++) {
        counter++;
        uint8_t *p = fw_put32(fw_put32(fw_put32(&frame[8], NONCE), session), counter);
        p = fw_put32(p, fw.urgent);
        for (uint32_t k = 0; k < FW_AXES; k++) {
            bool moves = (k < fw.config.n_axes) && (i < 90u);
            int32_t most = moves ? (int32_t)fw.config.axis[k].speed : 0;
            p = fw_put32(p, (uint32_t)((i % 10u == 0u) ? draw_signed(most) : most / 3));
        }
        send("any other frame", FW_JOG, 0, 40);
        run_to(fw.now + 20000u);
    }
    home(); /* the probe lies beyond where the axis is now */
    beat();
    uint8_t *p = fw_put32(&frame[8], fw.urgent);
    p = fw_put32(fw_put32(p, PROBE_AXIS), PROBE_PLACE * 2);
    (void)fw_put32(p, fw.config.axis[PROBE_AXIS].speed / 2u);
    send_sequenced(FW_PROBE, 16);
    pass(3000000);
    mix(&result.state, fw.probe_result);
    mix(&result.state, (uint32_t)fw.probe_pos);
    result.probe = fw.probe_result;
}

static bool last_of_job(void)
{
    return ((sent + 1u) % JOB == 0u) || (sent + 1u == end_index);
}

static void put_segment(uint8_t *q, const int32_t *d, uint32_t ratio, uint32_t power,
                        uint32_t speed, uint32_t ticks, uint32_t flags)
{
    uint8_t *p = q;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        p = fw_put16(p, (uint32_t)d[k] & 0xFFFFu);
    }
    p = fw_put16(p, ratio);
    p = fw_put16(p, power);
    p = fw_put16(p, speed);
    p = fw_put16(p, ticks & 0xFFFFu);
    p[0] = (uint8_t)(ticks >> 16);
    p[1] = (uint8_t)flags;
}

/* One segment as a plan might have it, within limits and travel. */
static void make_segment(uint8_t *q, int64_t *planned)
{
    int32_t d[FW_AXES] = {0, 0, 0, 0, 0, 0};
    uint32_t flags = 0;
    uint32_t kind = draw(100);
    if ((kind < 2u) && !last_of_job()) {
        d[0] = (int32_t)draw(4); /* law, and a cap on the energy now and then */
        d[1] = (draw(3) == 0u) ? (int32_t)draw(30000) + 1 : 0;
        uint32_t floor = draw(9000); /* one draw a line: C leaves the order of arguments open */
        uint32_t least = draw(16384);
        put_segment(q, d, 0, floor, least, 0, FW_FLAG_PARAM);
        return;
    }
    if (track_left == 0u) {
        track_left = 1u + draw(60);
        track_gate = !track_gate;
        flags |= track_gate ? FW_FLAG_TRACK_START : 0u;
    }
    track_left--;
    flags |= track_gate ? FW_FLAG_GATE : 0u;
    uint32_t ticks = 500u + draw(3500);
    uint32_t ratio = 20000u + draw(25000);
    if (kind < 4u) {
        flags |= FW_FLAG_DWELL;
    } else {
        for (uint32_t k = 0; k < fw.config.n_axes; k++) {
            const fw_axis_t *a = &fw.config.axis[k];
            /* at most half of the greatest speed, so that override and ramp are in it too */
            int64_t most = ((int64_t)a->speed * (int64_t)ticks) / 2000000;
            int32_t size = draw_signed((int32_t)((most < 30000) ? most : 30000));
            bool outside = (planned[k] + size > a->max) || (planned[k] + size < a->min);
            d[k] = outside ? -size : size;
            planned[k] += d[k];
        }
    }
    flags |= last_of_job() ? FW_FLAG_END : 0u;
    uint32_t power = draw(65536);
    uint32_t speed = draw(32769);
    put_segment(q, d, ratio, power, speed, ticks, flags);
}

static void feed(void)
{
    while ((sent < end_index) && (fw_queue_count(&fw) < FILL)) {
        int64_t planned[FW_AXES];
        uint32_t n = 1u + draw(20);
        (void)memcpy(planned, fw.planned, sizeof planned);
        (void)fw_put32(&frame[8], sent);
        uint32_t i = 0;
        while ((i < n) && (sent < end_index)) {
            make_segment(&frame[12u + FW_SEGMENT_SIZE * i], planned);
            sent++;
            i++;
        }
        send((i == 20u) ? "20 segments" : "up to 19 segments", FW_SEGMENTS, fw.next_seq,
             4u + FW_SEGMENT_SIZE * i);
    }
}

/* Something that an operator or the process might ask. */
static void disturb(void)
{
    uint32_t kind = draw(8);
    if (kind < 2u) {
        send_urgent(FW_HOLD_NOW);
        pass(1000u + draw(300000));
        send_again(FW_UNHOLD);
    } else if (kind < 4u) {
        send_sequenced(FW_HOLD, 0);
        pass(1000u + draw(300000));
        send_again(FW_UNHOLD);
    } else if (kind < 6u) {
        (void)fw_put16(&frame[8], 20000u + draw(16000));
        send_sequenced(FW_OVERRIDE, 2);
    } else if (kind < 7u) {
        (void)fw_put16(&frame[8], 30000u + draw(5000));
        send_sequenced(FW_TRIM, 2);
    } else {
        send_urgent(FW_DISARM);
        pass(100000u + draw(100000));
        arm();
        send_again(FW_UNHOLD);
    }
}

static void hash_state(void)
{
    uint64_t *h = &result.state;
    mix(h, fw.now);
    mix(h, fw.state);
    mix(h, fw.fault);
    mix(h, fw.index);
    mix(h, fw.tracks);
    mix(h, fw.next_seq);
    mix(h, fw.next_index);
    mix(h, fw.tx_count);
    mix(h, fw.urgent);
    mix(h, (uint64_t)fw.scale);
    mix(h, (uint64_t)fw.tau);
    mix(h, fw.x);
    for (uint32_t k = 0; k < FW_AXES; k++) {
        mix(h, (uint32_t)fw.pos[k]);
        mix(h, (uint32_t)place[k]);
        mix(h, (uint64_t)fw.planned[k]);
    }
}

/* A queue of PARAM records takes no time: all of them go in one step. */
static void many_records(void)
{
    int32_t none[FW_AXES] = {0, 0, 0, 0, 0, 0};
    uint32_t n = 1000;
    send_urgent(FW_DISARM); /* nothing starts before all of them are there */
    pass(200000);
    flush();
    for (uint32_t i = 0; i < n; i += 20u) {
        (void)fw_put32(&frame[8], sent);
        for (uint32_t k = 0; k < 20u; k++) {
            bool last = i + k + 1u == n;
            uint32_t flags = last ? (FW_FLAG_DWELL | FW_FLAG_END) : FW_FLAG_PARAM;
            put_segment(&frame[12u + FW_SEGMENT_SIZE * k], none, last ? 32768u : 0u, 1, 1,
                        last ? 1000u : 0u, flags);
        }
        sent += 20u;
        send("20 segments", FW_SEGMENTS, fw.next_seq, 4u + 20u * FW_SEGMENT_SIZE);
    }
    arm_counted("1000 records at one instant");
    pass(20000);
}

/* Bytes that begin a frame again and again: each costs a CRC. */
static void noise(void)
{
    uint8_t bytes[16];
    for (uint32_t i = 0; i < 2000u; i++) {
        for (uint32_t k = 0; k < 16u; k += 8u) {
            bytes[k] = 0xA5;
            bytes[k + 1u] = (uint8_t)FW_SEGMENTS;
            (void)fw_put16(&bytes[k + 2u], 4u + 20u * FW_SEGMENT_SIZE);
            (void)fw_put32(&bytes[k + 4u], i);
        }
        uint32_t since = selftest_clock();
        fw_rx(&fw, bytes, sizeof bytes);
        count("16 bytes of noise", since);
    }
    pass(20000); /* what waits is dropped with the next byte */
}

const selftest_t *selftest_run(uint32_t n_segments, uint64_t stride_us)
{
    (void)memset(&result, 0, sizeof result);
    draw_state = 20260529u;
    inputs = 1u << BOARD_IN_INTERLOCK;
    end_index = n_segments;
    stride = stride_us;
    counter = 0;
    next_beat = 0;
    sent = 0;
    track_left = 0;
    track_gate = false;
    ms_sum = 0;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        place[k] = START_PLACE;
    }
    if (!fw_init(&fw, 0, PORT_CONFIG, PORT_CONFIG_SIZE, NONCE)) {
        return &result;
    }
    session = 1;
    home();
    laws();
    flush();
    arm();
    while ((fw.next_index != end_index) || (fw_queue_count(&fw) > 0u)) {
        feed();
        pass(50000u + draw(100000));
        if (draw(4) == 0u) {
            disturb();
        }
        if ((fw.fault != (uint32_t)FW_OK) || (fw.next_index != sent)) {
            break; /* a refused frame or a fault: the hash will tell */
        }
    }
    send_urgent(FW_DISARM);
    pass(200000);
    by_hand();
    hash_state();
    result.t_us = fw.now;
    result.fault = fw.fault;
    selftest_t played = result;
    many_records();
    for (uint32_t i = 0; i < FW_EVENTS; i++) { /* no time passes: none of these is sent yet */
        send_urgent(FW_HOLD_NOW);
        send_again(FW_UNHOLD);
    }
    send("fault, event log full", FW_ABORT, fw.urgent + 1u, 0);
    noise();
    played.n_counts = result.n_counts;
    (void)memcpy(played.count, result.count, sizeof played.count);
    result = played;
    return &result;
}

static void text(const char *s)
{
    for (const char *p = s; *p != '\0'; p++) {
        selftest_put(*p);
    }
}

static void decimal(const char *name, uint64_t value)
{
    char digits[21];
    uint32_t n = sizeof digits - 1u;
    uint64_t v = value;
    digits[n] = '\0';
    do {
        n--;
        digits[n] = (char)('0' + (char)(v % 10u));
        v /= 10u;
    } while (v > 0u);
    text(name);
    selftest_put('=');
    text(&digits[n]);
    selftest_put('\n');
}

static void hexadecimal(const char *name, uint64_t value)
{
    text(name);
    selftest_put('=');
    for (uint32_t i = 0; i < 16u; i++) {
        selftest_put("0123456789abcdef"[(value >> (60u - 4u * i)) & 15u]);
    }
    selftest_put('\n');
}

void selftest_number(const char *name, uint32_t value)
{
    decimal(name, value);
}

void selftest_print(void)
{
    decimal("segments", result.segments);
    decimal("simulated_us", result.t_us);
    decimal("steps", result.steps);
    decimal("gate_edges", result.edges);
    decimal("refused", result.refused);
    decimal("fault", result.fault);
    decimal("probe", result.probe);
    decimal("queue", FW_QUEUE);
    hexadecimal("outputs", result.outputs);
    hexadecimal("frames", result.frames);
    hexadecimal("state", result.state);
    for (uint32_t i = 0; i < result.n_counts; i++) {
        text("count ");
        decimal(result.count[i].what, result.count[i].worst);
    }
}
