/* Vector table: 16 of the processor, then the chip's (RM0390, chapter 10). */
#include "port.h"

extern uint32_t port_stack_top[];
void port_dma2_stream1(void);
void port_dma1_stream6(void);
void port_usart2(void);

typedef union {
    uint32_t *stack;
    port_handler_t handler;
} vector_t;

#define F {.handler = port_fault}
#define F8 F, F, F, F, F, F, F, F

const vector_t PORT_VECTORS[16 + 64] __attribute__((section(".vectors"), used)) = {
    {.stack = port_stack_top}, {.handler = port_reset}, F, F, F, F, F, F, F8, /* processor */
    F8, F8, F, {.handler = port_dma1_stream6}, F, F, F, F, F, F,             /* 0 to 23 */
    F8, F, F, F, F, F, F, {.handler = port_usart2}, F,                       /* 24 to 39 */
    F8, F8, F, {.handler = port_dma2_stream1}, F, F, F, F, F, F,             /* 40 to 63 */
};
