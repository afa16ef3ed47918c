/* Registers of the LM3S6965 that the port uses (data sheet DS-LM3S6965, chapters 5, 8 and 12). */
#ifndef LMD_LM3S6965_H
#define LMD_LM3S6965_H

#include "cortexm.h"

#define SYSCTL_RCC REG32(0x400FE060u)   /* clock; SYSDIV in bits 23 to 26, USESYSDIV 22 */
#define SYSCTL_RCGC1 REG32(0x400FE104u) /* clock gates: UART0 bit 0, UART1 bit 1 */
#define SYSCTL_RCGC2 REG32(0x400FE108u) /* GPIO A bit 0, D bit 3 */
#define RCC_50_MHZ 0x01C003A0u          /* 8 MHz crystal, PLL 200 MHz / 4 */
#define RCC_200_MHZ 0x004003A0u         /* no silicon can: makes SysTick finest in the emulator */

#define GPIO_A 0x40004000u
#define GPIO_D 0x40007000u
#define GPIO_AFSEL 0x420u
#define GPIO_DEN 0x51Cu

#define UART0 0x4000C000u
#define UART1 0x4000D000u
#define UART_DR 0x000u
#define UART_FR 0x018u /* RXFE 0x10, TXFF 0x20 */
#define UART_IBRD 0x024u
#define UART_FBRD 0x028u
#define UART_LCRH 0x02Cu
#define UART_CTL 0x030u
#define UART_IM 0x038u
#define UART_ICR 0x044u
#define UART_RXFE 0x10u
#define UART_TXFF 0x20u
#define UART_INT_RX 0x50u /* receive and receive time-out */

#define IRQ_UART0 5u
#define IRQ_UART1 6u

#endif
