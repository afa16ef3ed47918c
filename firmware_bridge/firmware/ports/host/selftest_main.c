/* The self-test on this computer: selftest [segments [stride_us]] */
#include <stdio.h>
#include <stdlib.h>

#include "selftest.h"

uint32_t selftest_clock(void)
{
    return 0;
}

void selftest_put(char c)
{
    (void)putchar(c);
}

int main(int argc, char **argv)
{
    uint32_t n = (argc > 1) ? (uint32_t)strtoul(argv[1], NULL, 10) : 100000u;
    uint64_t stride = (argc > 2) ? strtoull(argv[2], NULL, 10) : 0u;
    const selftest_t *r = selftest_run(n, stride);
    selftest_print();
    return (r->segments == n) ? 0 : 1;
}
