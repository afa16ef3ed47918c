/* Vector table: 16 of the processor, then the chip's. */
#include "port.h"

extern uint32_t port_stack_top[];
void port_systick(void);
void port_uart0(void);
void port_uart1(void);

typedef union {
    uint32_t *stack;
    port_handler_t handler;
} vector_t;

/* Images that do not use an interrupt leave it at the fault. */
void __attribute__((weak)) port_systick(void)
{
    port_fault();
}

void __attribute__((weak)) port_uart0(void)
{
    port_fault();
}

void __attribute__((weak)) port_uart1(void)
{
    port_fault();
}

const vector_t PORT_VECTORS[16 + 8] __attribute__((section(".vectors"), used)) = {
    {.stack = port_stack_top},  {.handler = port_reset},  {.handler = port_fault},
    {.handler = port_fault},     {.handler = port_fault},  {.handler = port_fault},
    {.handler = port_fault},     {.handler = port_fault},  {.handler = port_fault},
    {.handler = port_fault},     {.handler = port_fault},  {.handler = port_fault},
    {.handler = port_fault},     {.handler = port_fault},  {.handler = port_fault},
    {.handler = port_systick},   {.handler = port_fault},  {.handler = port_fault},
    {.handler = port_fault},     {.handler = port_fault},  {.handler = port_fault},
    {.handler = port_uart0},     {.handler = port_uart1},  {.handler = port_fault},
};
