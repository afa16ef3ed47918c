/* Nucleo-F446RE: steps, gate and power in step with each other, from one clock.
 *
 * DMA plays a ring of words onto port C, one each 2.5 us: the ring is the clock. Each ms its
 * interrupt carries the firmware over the ms that has passed, in pieces of 0.1 ms, and writes
 * what came out into the half that has just been played, so that all planned outputs come
 * exactly 2 ms after their device time, whatever the interrupt's load. What a guard shuts does
 * not wait: the gate goes off at once and is taken out of the ring.
 *
 * A frame is looked at when the line falls idle, so that a stop does not wait for the ms.
 * DMA, UART and nothing else interrupt, at one priority: the core's one context.
 */
#include <string.h>

#include "chip.h"
#include "port.h"

#define PIECE_US 100u
#define PIECE_WORDS 40u /* of 2.5 us */
#define FIRST_WORD 2u   /* direction is there 5 us before the first step */
#define MOST_STEPS 19u  /* a piece: one word up, one down */
#define MOST_STEP_RATE 190000u
#define RX_A_TURN 128u /* bytes; the line brings 92 in a ms */
#define N_ENCODERS 3u

static fw_t fw;
static uint32_t ms;               /* halves of the ring that have been played */
static uint32_t stage[WORDS_MS];  /* this ms, as far as it is known */
static int32_t due[FW_AXES];      /* steps of this piece */
static uint32_t dir_bits;         /* levels of the direction pins */
static uint32_t piece;            /* of the ms, the one being made */
static uint16_t power_due[3];     /* at the end of this ms, in 1 ms, in 2 ms */
static uint32_t rx_at;
static uint8_t tx[TX_SIZE];
static uint32_t tx_head;
static uint32_t tx_tail;
static uint32_t tx_under_way;
static uint32_t encoder[N_ENCODERS];
static uint32_t inputs_before;
static volatile uint32_t alive; /* interrupts that went well, for the watchdog */

_Static_assert(RX_SIZE == FW_RX_WINDOW, "the receiver's window");
_Static_assert(sizeof(fw_t) < 96u * 1024u, "128 KB of RAM");

static void power_out(uint16_t power)
{
    DAC_DHR12R1 = (uint32_t)power >> 4;
    REG32(TIM1 + TIM_CCR1) = ((uint32_t)power >> 3) + (((uint32_t)power == 65535u) ? 1u : 0u);
}

/* Gate off and nothing in the ring or the stage that sets it again. */
static void gate_cut(void)
{
    for (uint32_t i = 0; i < 2u * WORDS_MS; i++) {
        chip_words[i] &= ~(1u << GATE_PIN);
    }
    for (uint32_t i = 0; i < WORDS_MS; i++) {
        stage[i] &= ~(1u << GATE_PIN);
    }
    chip_pin(GPIOC, GATE_PIN, false);
}

void port_panic(void)
{
    gate_cut();
    chip_pin(GPIOB, ENABLE_PIN, false);
    power_out(0);
}

void board_step(void *board, uint32_t axis, int32_t steps)
{
    (void)board;
    due[axis] += steps;
}

/* The plan's edges go with the steps; a guard's do not wait. */
void board_gate(void *board, bool on)
{
    (void)board;
    uint32_t flags = fw.playing ? fw.queue[fw.tail & (FW_QUEUE - 1u)].flags : 0u;
    bool plan = fw.armed && (fw.fault == (uint32_t)FW_OK) && fw.interlock &&
                ((flags & FW_FLAG_GATE) == 0u);
    if (on || plan) {
        uint32_t *word = &stage[piece * PIECE_WORDS];
        uint32_t set = 1u << GATE_PIN;
        uint32_t clear = set << 16;
        *word = (*word & ~(set | clear)) | (on ? set : clear);
    } else {
        gate_cut();
    }
}

void board_power(void *board, uint16_t power)
{
    (void)board;
    power_due[2] = power;
    if (power == 0u) {
        bool plan = fw.armed && (fw.fault == (uint32_t)FW_OK);
        if (!plan) {
            power_due[0] = 0;
            power_due[1] = 0;
            power_out(0);
        }
    }
}

/* All inputs as one word, bit by number in board.h. */
static uint32_t read_inputs(void)
{
    /* port (0 A, 1 B) and pin; interlock, home 0 to 5, low 0 to 2, high 0 to 2, probe, following */
    static const uint8_t PIN[15][3] = {
        {BOARD_IN_INTERLOCK, 1, 1},       {BOARD_IN_SWITCH, 1, 12},
        {BOARD_IN_SWITCH + 1u, 1, 13},    {BOARD_IN_SWITCH + 2u, 1, 14},
        {BOARD_IN_SWITCH + 3u, 1, 15},    {BOARD_IN_SWITCH + 4u, 1, 8},
        {BOARD_IN_SWITCH + 5u, 1, 9},     {BOARD_IN_LIMIT_LOW, 0, 12},
        {BOARD_IN_LIMIT_LOW + 1u, 1, 4},  {BOARD_IN_LIMIT_LOW + 2u, 1, 5},
        {BOARD_IN_LIMIT_HIGH, 0, 9},      {BOARD_IN_LIMIT_HIGH + 1u, 0, 10},
        {BOARD_IN_LIMIT_HIGH + 2u, 0, 11}, {BOARD_IN_PROBE, 1, 10},
        {BOARD_IN_FOLLOWING, 1, 3},
    };
    const uint32_t level[2] = {REG32(GPIOA + GPIO_IDR), REG32(GPIOB + GPIO_IDR)};
    uint32_t word = 0;
    for (uint32_t i = 0; i < 15u; i++) {
        word |= ((level[PIN[i][1]] >> PIN[i][2]) & 1u) << PIN[i][0];
    }
    return word;
}

bool board_input(void *board, uint32_t input)
{
    (void)board;
    return ((read_inputs() >> input) & 1u) != 0u;
}

static void read_encoders(void)
{
    encoder[0] = REG32(TIM2 + TIM_CNT); /* 32 bits; the others have 16 */
    static const uint32_t TIMER[N_ENCODERS] = {TIM2, TIM3, TIM4};
    for (uint32_t k = 1; k < N_ENCODERS; k++) {
        uint32_t change = (REG32(TIMER[k] + TIM_CNT) - encoder[k]) & 0xFFFFu;
        encoder[k] += (change < 0x8000u) ? change : change - 0x10000u;
    }
}

uint32_t board_encoder(void *board, uint32_t axis)
{
    (void)board;
    return (axis < N_ENCODERS) ? encoder[axis] : 0u;
}

static void tx_go_on(void)
{
    if (chip_sending()) {
        return;
    }
    tx_tail += tx_under_way;
    tx_under_way = 0;
    uint32_t waiting = tx_head - tx_tail;
    if (waiting > 0u) {
        uint32_t at = tx_tail % TX_SIZE;
        tx_under_way = (waiting < TX_SIZE - at) ? waiting : TX_SIZE - at;
        chip_send(&tx[at], tx_under_way);
    }
}

/* A line that takes nothing loses whole frames: the host sees it by the frame numbers. */
void board_tx(void *board, const uint8_t *bytes, uint32_t n)
{
    (void)board;
    if (TX_SIZE - (tx_head - tx_tail) >= n) {
        uint32_t at = tx_head % TX_SIZE;
        uint32_t first = (n < TX_SIZE - at) ? n : TX_SIZE - at;
        (void)memcpy(&tx[at], bytes, first);
        (void)memcpy(tx, &bytes[first], n - first);
        tx_head += n;
    }
    tx_go_on();
}

void board_trace(void *board, uint32_t kind, int32_t arg)
{
    (void)board;
    (void)kind;
    (void)arg;
}

/* Steps of a piece, evenly over its words. Too many cannot be: main() looks at the limits. */
static void write_steps(void)
{
    uint32_t *words = &stage[piece * PIECE_WORDS];
    for (uint32_t k = 0; k < FW_AXES; k++) {
        if (due[k] != 0) {
            bool back = due[k] < 0;
            uint32_t n = (uint32_t)(back ? -due[k] : due[k]);
            uint32_t dir = 1u << (DIR_PIN + k);
            if (n > MOST_STEPS) {
                port_fault();
            }
            if (((dir_bits & dir) != 0u) != back) {
                dir_bits ^= dir;
                words[0] |= back ? dir : (dir << 16);
            }
            for (uint32_t i = 0; i < n; i++) {
                uint32_t at = FIRST_WORD + 2u * ((i * MOST_STEPS) / n);
                words[at] |= 1u << (STEP_PIN + k);
                words[at + 1u] |= 1u << (STEP_PIN + k + 16u);
            }
            due[k] = 0;
        }
    }
}

/* Device time by the place in the ring. */
static uint64_t now_us(void)
{
    uint32_t left = REG32(DMA2 + DMA_NDTR(1u));
    uint32_t halves = ms;
    if ((REG32(DMA2 + DMA_LISR) & 0xC00u) != 0u) { /* a half has ended and nobody has counted */
        left = REG32(DMA2 + DMA_NDTR(1u));
        halves++;
    }
    uint32_t word = (2u * WORDS_MS - left) % WORDS_MS;
    return (uint64_t)halves * 1000u + (word * 5u) / 2u;
}

/* To an instant of the present ms, piece by piece. */
static void advance(uint64_t now)
{
    uint64_t start = (uint64_t)ms * 1000u;
    uint64_t end = start + (uint64_t)(piece + 1u) * PIECE_US;
    while (end <= now) {
        fw_run(&fw, end);
        write_steps();
        piece++;
        end += PIECE_US;
        if (piece == WORDS_MS / PIECE_WORDS) {
            return;
        }
    }
    fw_run(&fw, now);
}

static void take_bytes(void)
{
    uint32_t head = chip_rx_at(); /* a register: it moves */
    uint32_t n = (head - rx_at) % RX_SIZE;
    n = (n > RX_A_TURN) ? RX_A_TURN : n;
    if (n > 0u) {
        uint32_t first = (n < RX_SIZE - rx_at) ? n : RX_SIZE - rx_at;
        fw_rx(&fw, &chip_rx[rx_at], first);
        if (n > first) {
            fw_rx(&fw, chip_rx, n - first);
        }
        rx_at = (rx_at + n) % RX_SIZE;
    }
}

static void look_at_inputs(void)
{
    uint32_t inputs = read_inputs();
    if (inputs != inputs_before) {
        inputs_before = inputs;
        fw_inputs(&fw);
    }
}

/* A ms has been played: its half takes what comes in 2 ms. */
void port_dma2_stream1(void);
void port_dma2_stream1(void)
{
    REG32(DMA2 + DMA_LIFCR) = 0xF40u;
    uint32_t half = ms % 2u;
    read_encoders();
    advance((uint64_t)(ms + 1u) * 1000u);
    (void)memcpy(&chip_words[half * WORDS_MS], stage, sizeof stage);
    (void)memset(stage, 0, sizeof stage);
    power_out(power_due[0]);
    power_due[0] = power_due[1];
    power_due[1] = power_due[2];
    ms++;
    piece = 0;
    look_at_inputs();
    take_bytes();
    chip_pin(GPIOB, ALIVE_PIN, (ms & 1u) != 0u);
    /* the next half must not have ended meanwhile: steps would have been lost */
    if ((REG32(DMA2 + DMA_LISR) & 0xC00u) != 0u) {
        port_fault();
    }
    alive++;
}

void port_usart2(void);
void port_usart2(void)
{
    (void)USART2_SR; /* reading both takes the idle flag back */
    (void)USART2_DR;
    if ((REG32(DMA2 + DMA_LISR) & 0xC00u) == 0u) { /* else the ms comes first */
        advance(now_us());
        look_at_inputs();
        take_bytes();
    }
}

void port_dma1_stream6(void);
void port_dma1_stream6(void)
{
    REG32(DMA1 + DMA_HIFCR) = 0x3Du << 16;
    tx_go_on();
}

/* The step words hold so many a piece, override included (docs/protocol.md, OVERRIDE). */
static bool fast_enough(void)
{
    bool fits = true;
    for (uint32_t k = 0; k < fw.config.n_axes; k++) {
        fits = fits && (fw.config.axis[k].speed <= (MOST_STEP_RATE / 102u) * 100u);
    }
    return fits;
}

int main(void)
{
    bool outside = chip_start();
    uint32_t nonce = chip_entropy();
    inputs_before = read_inputs();
    read_encoders();
    if (!fw_init(&fw, 0, PORT_CONFIG, PORT_CONFIG_SIZE, nonce) || !fast_enough()) {
        port_fault();
    }
    (void)memset(stage, 0, sizeof stage);
    chip_pin(GPIOB, ENABLE_PIN, true);
    chip_watchdog_start();
    chip_steps_start();
    uint32_t seen = 0;
    for (;;) {
        cpu_wait();
        if (alive != seen) {
            seen = alive;
            chip_watchdog_feed();
            /* slow with the programmer's clock, fast without */
            chip_pin(GPIOA, LED_PIN, ((seen >> (outside ? 9u : 6u)) & 1u) != 0u);
        }
    }
}
