/* From reset to main(): stack marked so that its use can be read, .data copied, .bss cleared. */
#include "cortexm.h"
#include "port.h"

#define MARK 0xC5C5C5C5u
#define SPARE 64u /* words below the stack pointer that are left alone */

extern uint32_t port_data_load[];
extern uint32_t port_data_start[];
extern uint32_t port_data_end[];
extern uint32_t port_bss_start[];
extern uint32_t port_bss_end[];
extern uint32_t port_stack_low[];
extern uint32_t port_stack_top[];

void port_reset(void)
{
    const uint32_t *from = port_data_load;
    for (uint32_t *to = port_data_start; to != port_data_end; to++) {
        *to = *from;
        from++;
    }
    for (uint32_t *to = port_bss_start; to != port_bss_end; to++) {
        *to = 0;
    }
    for (uint32_t *to = port_stack_low; to < cpu_stack() - SPARE; to++) {
        *to = MARK;
    }
    (void)main();
    port_fault();
}

void port_fault(void)
{
    port_panic();
    for (;;) { /* the watchdog ends it */
    }
}

uint32_t port_stack_used(void)
{
    const uint32_t *p = port_stack_low;
    while ((p != port_stack_top) && (*p == MARK)) {
        p++;
    }
    return (uint32_t)((uintptr_t)port_stack_top - (uintptr_t)p);
}
