/* Registers that every Cortex-M3/M4 has (ARM DDI 0403E: B3.2 system control, B3.3 SysTick,
 * B3.4 NVIC). Only what the ports use. */
#ifndef LMD_CORTEXM_H
#define LMD_CORTEXM_H

#include <stdint.h>

#define REG32(address) (*(volatile uint32_t *)(address))

#define SYST_CSR REG32(0xE000E010u) /* 1 enable, 2 interrupt, 4 processor clock */
#define SYST_RVR REG32(0xE000E014u) /* reload, 24 bits */
#define SYST_CVR REG32(0xE000E018u) /* counts down */
#define SCB_ICSR REG32(0xE000ED04u)
#define SCB_ICSR_PENDSTSET (1u << 26) /* SysTick waits */
#define SCB_AIRCR REG32(0xE000ED0Cu)
#define SCB_SHPR3 REG32(0xE000ED20u) /* priority of SysTick in the top byte */

/* Interrupt n (0 is the first of the chip's own). */
static inline void nvic_enable(uint32_t n, uint32_t priority)
{
    ((volatile uint8_t *)0xE000E400u)[n] = (uint8_t)priority;
    REG32(0xE000E100u + 4u * (n / 32u)) = 1u << (n % 32u);
}

static inline void cpu_wait(void)
{
    __asm volatile("wfi");
}

static inline uint32_t *cpu_stack(void)
{
    uint32_t *sp;
    __asm volatile("mov %0, sp" : "=r"(sp));
    return sp;
}

#endif
