/* LM3S6965 in QEMU (machine lm3s6965evb): the segment protocol on UART0.
 *
 * UART1 is the bench: it stands for the wires that an emulator has not got. A letter sets an
 * input of board.h (A to U true, a to u false), `?` asks where the axes stand; each edge of the
 * gate output is told with the device time. Axes are counted, and a home switch closes at 0.
 *
 * SysTick (1 ms) and the UARTs share one priority: the core's one context.
 */
#include "lm3s6965.h"
#include "port.h"

#define MS_CYCLES 50000u /* 50 MHz */
#define CYCLES_US 50u
#define FIFO 16u
#define PRIORITY 0x40u
#define DEFAULT_NONCE 0x1234ABCDu
#define START_PLACE 1000 /* steps from the home switch at power-up */

/* Set by the emulator's loader, as an entropy source would: -device loader,addr=0x20001000 */
static uint32_t boot_word __attribute__((section(".noinit"), used));

static fw_t fw;
static uint32_t ms;
static int32_t place[FW_AXES];
static uint32_t inputs = 1u << BOARD_IN_INTERLOCK;
static bool gate;
static uint16_t power;

_Static_assert(sizeof(fw_t) < 48u * 1024u, "64 KB of RAM");

static uint64_t now_us(void)
{
    uint32_t whole = ms;
    uint32_t left = SYST_CVR;
    if ((SCB_ICSR & SCB_ICSR_PENDSTSET) != 0u) { /* it has wrapped and nobody has counted */
        left = SYST_CVR;
        whole++;
    }
    return (uint64_t)whole * 1000u + (MS_CYCLES - 1u - left) / CYCLES_US;
}

static void uart_put(uint32_t uart, uint8_t byte)
{
    while ((REG32(uart + UART_FR) & UART_TXFF) != 0u) {
    }
    REG32(uart + UART_DR) = byte;
}

static void bench_number(uint64_t value)
{
    uint8_t digits[20];
    uint32_t n = 0;
    uint64_t v = value;
    do {
        digits[n] = (uint8_t)('0' + (uint8_t)(v % 10u));
        n++;
        v /= 10u;
    } while (v > 0u);
    uart_put(UART1, ' ');
    while (n > 0u) {
        n--;
        uart_put(UART1, digits[n]);
    }
}

void board_step(void *board, uint32_t axis, int32_t steps)
{
    (void)board;
    place[axis] += steps;
}

void board_gate(void *board, bool on)
{
    (void)board;
    gate = on;
    uart_put(UART1, 'g');
    bench_number(on ? 1u : 0u);
    bench_number(fw.now);
    uart_put(UART1, '\n');
}

void board_power(void *board, uint16_t value)
{
    (void)board;
    power = value;
}

bool board_input(void *board, uint32_t input)
{
    (void)board;
    bool home = false;
    if ((input >= BOARD_IN_SWITCH) && (input < BOARD_IN_SWITCH + FW_AXES)) {
        home = place[input - BOARD_IN_SWITCH] <= 0;
    }
    return home || (((inputs >> input) & 1u) != 0u);
}

/* One count a step: an encoder that loses nothing. */
uint32_t board_encoder(void *board, uint32_t axis)
{
    (void)board;
    return (uint32_t)place[axis];
}

void board_tx(void *board, const uint8_t *bytes, uint32_t n)
{
    (void)board;
    for (uint32_t i = 0; i < n; i++) {
        uart_put(UART0, bytes[i]);
    }
}

void board_trace(void *board, uint32_t kind, int32_t arg)
{
    (void)board;
    (void)kind;
    (void)arg;
}

void port_panic(void)
{
    gate = false;
    power = 0;
}

void port_systick(void);
void port_uart0(void);
void port_uart1(void);

void port_systick(void)
{
    ms++;
    fw_run(&fw, now_us());
}

/* The emulated line waits until the FIFO is read, so no byte is lost. The interrupt comes with
 * the first byte in an empty FIFO only: taken back first, and left when it is empty. */
void port_uart0(void)
{
    uint8_t bytes[FIFO];
    uint32_t n = FIFO;
    REG32(UART0 + UART_ICR) = UART_INT_RX;
    while (n == FIFO) {
        n = 0;
        while ((n < FIFO) && ((REG32(UART0 + UART_FR) & UART_RXFE) == 0u)) {
            bytes[n] = (uint8_t)REG32(UART0 + UART_DR);
            n++;
        }
        fw_run(&fw, now_us());
        fw_rx(&fw, bytes, n);
    }
}

static void bench(uint8_t byte)
{
    if ((byte >= (uint8_t)'A') && (byte < (uint8_t)'A' + BOARD_INPUTS)) {
        inputs |= 1u << (byte - (uint8_t)'A');
        fw_inputs(&fw);
    } else if ((byte >= (uint8_t)'a') && (byte < (uint8_t)'a' + BOARD_INPUTS)) {
        inputs &= ~(1u << (byte - (uint8_t)'a'));
        fw_inputs(&fw);
    } else if (byte == (uint8_t)'?') {
        uart_put(UART1, 'p');
        for (uint32_t k = 0; k < FW_AXES; k++) {
            bench_number((uint64_t)(uint32_t)place[k]);
        }
        bench_number(power);
        bench_number(gate ? 1u : 0u);
        bench_number(port_stack_used());
        uart_put(UART1, '\n');
    } else {
        /* not for us */
    }
}

void port_uart1(void)
{
    REG32(UART1 + UART_ICR) = UART_INT_RX;
    fw_run(&fw, now_us());
    while ((REG32(UART1 + UART_FR) & UART_RXFE) == 0u) {
        bench((uint8_t)REG32(UART1 + UART_DR));
    }
}

static void uart_start(uint32_t uart, uint32_t irq)
{
    REG32(uart + UART_CTL) = 0;
    REG32(uart + UART_IBRD) = 3; /* 50 MHz / (16 * 921600) = 3.39 */
    REG32(uart + UART_FBRD) = 25;
    REG32(uart + UART_LCRH) = 0x70; /* 8 bits, FIFO */
    REG32(uart + UART_IM) = UART_INT_RX;
    REG32(uart + UART_CTL) = 0x301; /* on, both ways */
    nvic_enable(irq, PRIORITY);
}

int main(void)
{
    SYSCTL_RCC = RCC_50_MHZ;
    SYSCTL_RCGC1 |= 3u;
    SYSCTL_RCGC2 |= 9u;
    REG32(GPIO_A + GPIO_AFSEL) |= 3u;
    REG32(GPIO_A + GPIO_DEN) |= 3u;
    REG32(GPIO_D + GPIO_AFSEL) |= 0x0Cu;
    REG32(GPIO_D + GPIO_DEN) |= 0x0Cu;
    for (uint32_t k = 0; k < FW_AXES; k++) {
        place[k] = START_PLACE;
    }
    uint32_t nonce = (boot_word != 0u) ? boot_word : DEFAULT_NONCE;
    if (!fw_init(&fw, 0, PORT_CONFIG, PORT_CONFIG_SIZE, nonce)) {
        port_fault();
    }
    SCB_SHPR3 = PRIORITY << 24;
    SYST_RVR = MS_CYCLES - 1u;
    SYST_CVR = 0;
    SYST_CSR = 7;
    uart_start(UART0, IRQ_UART0);
    uart_start(UART1, IRQ_UART1);
    for (;;) {
        cpu_wait();
    }
}
