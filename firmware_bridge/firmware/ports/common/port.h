/* What the ports share: start-up, the configuration that is built in, one turn of the core. */
#ifndef LMD_PORT_H
#define LMD_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "fw.h"

/* Built from the cell file: tools/config_blob.py. */
extern const uint8_t PORT_CONFIG[];
extern const uint32_t PORT_CONFIG_SIZE;

/* startup.c */
typedef void (*port_handler_t)(void);
void port_reset(void);   /* first in the vector table: memory, then main() */
void port_fault(void);   /* any exception that nobody expects */
void port_panic(void);   /* the port's own: outputs off, at once, whatever the state */
uint32_t port_stack_used(void); /* greatest so far, bytes */
int main(void);

#endif
