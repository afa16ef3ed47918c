/* Fuzz target of the whole firmware behind its wire: bytes in, guards watched.
 *
 * The input is a list of turns, each one byte that says what, and its argument:
 *   0 to 127   so many raw bytes (the next ones), as from a line
 *   128        a well-made frame: type, length of payload, payload; number and CRC are right, and
 *              so are boot nonce, hash and urgent number where this type quotes them, unless the
 *              type's top bit is set
 *   129        time passes: u16, 8 us each
 *   130        an input: number and level in one byte
 *   131        a beat, then 10 ms; home, flush and arm when nothing else is going on
 *   132        an axis is moved by hand: axis, i8 steps (what an encoder sees)
 * With clang: libFuzzer. With gcc: fuzz_main.c.
 */
#include <stdlib.h>
#include <string.h>

#include "fw_internal.h"
#include "port.h"

#define NONCE 0x1234ABCDu /* that of the examples in docs/protocol.md */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fw_t fw;
static int64_t place[FW_AXES];
static uint32_t inputs;
static bool gate;
static uint16_t power;
static uint32_t session;
static uint32_t counter;

/* A broken promise: stop where the sanitizer shows the stack. */
static void check(bool kept)
{
    if (!kept) {
        abort();
    }
}

void board_step(void *board, uint32_t axis, int32_t steps)
{
    (void)board;
    check(axis < fw.config.n_axes);
    check(steps != 0);
    place[axis] += steps;
}

void board_gate(void *board, bool on)
{
    (void)board;
    gate = on;
    if (on) { /* section 7: never without all of these */
        check(fw.armed && fw.homed && (fw.fault == (uint32_t)FW_OK));
        check((inputs & 1u) != 0u);
        check((fw.state == (uint32_t)FW_RUNNING) && fw_beat_fresh(&fw));
    }
}

void board_power(void *board, uint16_t value)
{
    (void)board;
    power = value;
}

bool board_input(void *board, uint32_t input)
{
    (void)board;
    check(input < BOARD_INPUTS);
    bool home = false;
    if ((input >= BOARD_IN_SWITCH) && (input < BOARD_IN_SWITCH + FW_AXES)) {
        home = place[input - BOARD_IN_SWITCH] <= 0;
    }
    return home || (((inputs >> input) & 1u) != 0u);
}

uint32_t board_encoder(void *board, uint32_t axis)
{
    (void)board;
    check(axis < FW_AXES);
    return (uint32_t)place[axis];
}

void board_tx(void *board, const uint8_t *bytes, uint32_t n)
{
    (void)board;
    check((n >= FW_OVERHEAD) && (n <= FW_MAX_PAYLOAD + FW_OVERHEAD) && (bytes[0] == 0xA5u));
    check(fw_crc32(bytes, n - 4u) == fw_u32(&bytes[n - 4u]));
}

void board_trace(void *board, uint32_t kind, int32_t arg)
{
    (void)board;
    (void)kind;
    (void)arg;
}

/* What holds whenever nothing is under way. */
static void look(void)
{
    check(fw_queue_count(&fw) <= FW_QUEUE);
    check(fw_queue_count(&fw) + fw_queue_free(&fw) == FW_QUEUE);
    check(gate == fw.gate);
    check(power == fw.power);
    check(!gate || (fw.armed && (fw.fault == (uint32_t)FW_OK) && ((inputs & 1u) != 0u)));
    check((power == 0u) || (fw.armed && (fw.fault == (uint32_t)FW_OK)));
    check(!fw.armed || ((fw.beat_us != FW_NEVER) && (fw.now - fw.beat_us <= fw.config.heartbeat_us)));
    check((fw.fault == (uint32_t)FW_OK) || (fw.state == (uint32_t)FW_FAULTED));
    check(fw.rx_n < FW_RX_SIZE);
    check((fw.scale >= 0) && (fw.scale <= 2 * FW_SCALE_ONE));
    if (fw.homed && !fw.playing && (fw.state == (uint32_t)FW_IDLE) && (fw_queue_count(&fw) == 0u)) {
        for (uint32_t k = 0; k < fw.config.n_axes; k++) {
            check(fw.planned[k] == fw.pos[k]); /* executed what was queued, to the step */
        }
    }
}

static void run_for(uint64_t us)
{
    uint64_t until = fw.now + us;
    while (fw.now < until) {
        uint64_t before = fw.now;
        bool fresh = fw_beat_fresh(&fw);
        fw_step(&fw, until);
        check(fw.now >= before);
        check(!gate || fresh);
        look();
    }
}

static void deliver(uint32_t type, uint32_t number, const uint8_t *payload, uint32_t n)
{
    uint8_t frame[FW_MAX_PAYLOAD + FW_OVERHEAD];
    frame[0] = 0xA5;
    frame[1] = (uint8_t)type;
    (void)fw_put32(fw_put16(&frame[2], n), number);
    (void)memcpy(&frame[8], payload, n);
    (void)fw_put32(&frame[8u + n], fw_crc32(frame, 8u + n));
    fw_rx(&fw, frame, n + FW_OVERHEAD);
}

/* Puts what must be quoted where this type quotes it. */
static void quote(uint32_t type, uint8_t *p, uint32_t n)
{
    if ((type == (uint32_t)FW_ARM) && (n == 16u)) {
        session = fw.session + 1u;
        counter = 0;
        (void)fw_put32(fw_put32(fw_put32(fw_put32(p, NONCE), session), fw.config.hash), fw.urgent);
    } else if (((type == (uint32_t)FW_BEAT) && (n == 12u)) ||
               ((type == (uint32_t)FW_JOG) && (n == 40u))) {
        counter++;
        (void)fw_put32(fw_put32(fw_put32(p, NONCE), session), counter);
        if (type == (uint32_t)FW_JOG) {
            (void)fw_put32(&p[12], fw.urgent);
        }
    } else if ((type == (uint32_t)FW_SEGMENTS) && (n >= 4u)) {
        (void)fw_put32(p, fw.next_index);
    } else if ((type == (uint32_t)FW_FLUSH) && (n == 8u)) {
        (void)fw_put32(&p[4], fw.urgent);
    } else if (((type == (uint32_t)FW_UNHOLD) || (type == (uint32_t)FW_RESET) ||
                (type == (uint32_t)FW_HOME) || (type == (uint32_t)FW_PROBE)) &&
               (n >= 4u)) {
        (void)fw_put32(p, fw.urgent);
    } else {
        /* quotes nothing */
    }
}

static void well_made(uint32_t type, const uint8_t *payload, uint32_t n)
{
    uint8_t p[FW_MAX_PAYLOAD];
    (void)memcpy(p, payload, n);
    uint32_t kind = type & 0x7Fu;
    bool urgent = (kind == (uint32_t)FW_DISARM) || (kind == (uint32_t)FW_HOLD_NOW) ||
                  (kind == (uint32_t)FW_ABORT);
    if ((type & 0x80u) == 0u) {
        quote(kind, p, n);
    }
    deliver(kind, urgent ? fw.urgent + 1u : fw.next_seq, p, n);
}

static void beat(void)
{
    uint8_t p[12];
    quote(FW_BEAT, p, sizeof p);
    deliver(FW_BEAT, 0, p, sizeof p);
}

/* The usual way to a device that plays. */
static void usual(void)
{
    uint8_t p[16] = {0};
    beat();
    run_for(10000);
    if (fw.state != (uint32_t)FW_IDLE) {
        return;
    }
    if (!fw.homed) {
        quote(FW_HOME, p, 4);
        deliver(FW_HOME, fw.next_seq, p, 4);
        for (uint32_t i = 0; (i < 200u) && (fw.state == (uint32_t)FW_HOMING); i++) {
            beat();
            run_for(20000);
        }
    } else if (!fw.armed) {
        quote(FW_ARM, p, 16);
        deliver(FW_ARM, fw.next_seq, p, 16);
    } else {
        /* it plays as soon as there is enough */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    inputs = 1u;
    gate = false;
    power = 0;
    session = 1;
    counter = 0;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        place[k] = 20;
    }
    check(fw_init(&fw, NULL, PORT_CONFIG, PORT_CONFIG_SIZE, NONCE));
    size_t at = 0;
    while (at < size) {
        uint32_t what = data[at];
        size_t left = size - at - 1u;
        const uint8_t *p = &data[at + 1u];
        uint32_t n = 0;
        if (what < 128u) {
            n = (what < left) ? what : (uint32_t)left;
            fw_rx(&fw, p, n);
        } else if ((what == 128u) && (left >= 3u)) {
            uint32_t length = fw_u16(&p[1]) % (FW_MAX_PAYLOAD + 1u);
            n = 3u + ((length < left - 3u) ? length : (uint32_t)(left - 3u));
            well_made(p[0], &p[3], n - 3u);
        } else if ((what == 129u) && (left >= 2u)) {
            n = 2;
            run_for((uint64_t)fw_u16(p) * 8u);
        } else if ((what == 130u) && (left >= 1u)) {
            n = 1;
            uint32_t bit = 1u << ((p[0] & 31u) % BOARD_INPUTS);
            inputs = ((p[0] & 0x80u) != 0u) ? (inputs | bit) : (inputs & ~bit);
            fw_inputs(&fw);
        } else if (what == 131u) {
            usual();
        } else if ((what == 132u) && (left >= 2u)) {
            n = 2;
            place[p[0] % FW_AXES] += (int64_t)p[1] - 128;
        } else {
            run_for(what);
        }
        look();
        at += 1u + n;
    }
    run_for(5000);
    return 0;
}
