/* The same 10^5 segments on any processor: what came out, as hashes. */
#ifndef LMD_SELFTEST_H
#define LMD_SELFTEST_H

#include <stdint.h>

#define SELFTEST_COUNTS 12u

typedef struct {
    uint64_t outputs;  /* steps, gate, power, trace: each with its instant */
    uint64_t frames;   /* every byte sent to the host */
    uint64_t state;    /* the firmware's state at the end */
    uint64_t t_us;     /* simulated time */
    uint32_t segments; /* executed */
    uint32_t steps;
    uint32_t edges; /* of the gate */
    uint32_t refused; /* UNHOLD while the queue is low, and the like */
    uint32_t fault;   /* at the end of the job: 0 */
    uint32_t probe;   /* outcome: FW_PROBE_FOUND */
    uint32_t worst_ms; /* selftest_clock() in the steps of 1 ms */
    uint32_t n_counts;
    struct {
        const char *what;
        uint32_t worst; /* selftest_clock() */
    } count[SELFTEST_COUNTS];
} selftest_t;

/* Instructions executed, or any count that rises; 0 always where there is none. */
uint32_t selftest_clock(void);
const selftest_t *selftest_run(uint32_t n_segments, uint64_t stride_us);
/* The result as text. */
void selftest_print(void);
void selftest_number(const char *name, uint32_t value);
void selftest_put(char c); /* where text goes: the port's own */

#endif
