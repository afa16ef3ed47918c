/* The self-test in QEMU: text by semihosting (ARM IHI 0100), then exit.
 *
 * With -icount shift=0 each instruction takes 1 ns, and SysTick, set to a clock of 200 MHz that
 * no silicon has, counts once in 5 instructions.
 */
#include "lm3s6965.h"
#include "port.h"
#include "selftest.h"

#define SYS_WRITEC 0x03u
#define SYS_EXIT 0x18u
#define EXIT_OK 0x20026u
#define EXIT_ERROR 0x20023u
#define N_SEGMENTS 100000u
#define COUNTER 0xFFFFFFu

static void semihost(uint32_t operation, uint32_t argument)
{
    register uint32_t r0 __asm("r0") = operation;
    register uint32_t r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void selftest_put(char c)
{
    char byte = c;
    semihost(SYS_WRITEC, (uint32_t)(uintptr_t)&byte);
}

void port_panic(void)
{
    selftest_put('!');
    semihost(SYS_EXIT, EXIT_ERROR);
}

/* Wraps within 84 million instructions; no single call takes so many. */
uint32_t selftest_clock(void)
{
    static uint32_t last;
    static uint32_t total;
    uint32_t now = SYST_CVR;
    total += ((last - now) & COUNTER) * 5u;
    last = now;
    return total;
}

int main(void)
{
    SYSCTL_RCC = RCC_200_MHZ;
    SYST_RVR = COUNTER;
    SYST_CVR = 0;
    SYST_CSR = 5;
    /* as a board does it that looks each 0.1 ms: the load of its interrupts */
    selftest_number("count 1 ms in steps of 0.1 ms", selftest_run(N_SEGMENTS / 5u, 100)->worst_ms);
    const selftest_t *r = selftest_run(N_SEGMENTS, 0);
    selftest_print();
    selftest_number("stack", port_stack_used());
    semihost(SYS_EXIT, (r->segments == N_SEGMENTS) ? EXIT_OK : EXIT_ERROR);
    return 0;
}
