/* Receiver: finds frames in bytes that may be anything (docs/protocol.md, Decoder). */
#include <string.h>

#include "fw_internal.h"

#define SYNC 0xA5u
#define HEADER 8u
#define GAP_US 10000u

/* Lengths that a host frame of this type may have. */
static bool length_fits(uint32_t type, uint32_t n)
{
    /* indexed by type; 0xFF: no such type or not fixed */
    static const uint8_t LENGTH[18] = {0xFF, 2, 0xFF, 12, 16, 0, 0,  0,  4,
                                       0,    4, 2,    2,  4,  8, 40, 16, 104};
    if (type == (uint32_t)FW_SEGMENTS) {
        return (n >= 4u + FW_SEGMENT_SIZE) && (n <= 4u + 20u * FW_SEGMENT_SIZE) &&
               ((n - 4u) % FW_SEGMENT_SIZE == 0u);
    }
    return (type < 18u) && (LENGTH[type] != 0xFFu) && (LENGTH[type] == n);
}

/* Handles the frames in the buffer. With `stale`, a frame that is not whole counts as none. */
static void parse(fw_t *fw, bool stale)
{
    uint32_t at = 0;
    while (at < fw->rx_n) {
        const uint8_t *p = &fw->rx[at];
        uint32_t have = fw->rx_n - at;
        bool whole = false;
        uint32_t n = 0;
        if (p[0] == SYNC) {
            if (have < HEADER) {
                if (!stale) {
                    break;
                }
            } else {
                n = fw_u16(&p[2]);
                if (length_fits(p[1], n)) {
                    if ((have < n + FW_OVERHEAD) && !stale) {
                        break;
                    }
                    whole = (have >= n + FW_OVERHEAD) &&
                            (fw_crc32(p, HEADER + n) == fw_u32(&p[HEADER + n]));
                }
            }
        }
        if (whole) {
            at += n + FW_OVERHEAD;
            fw_command(fw, p[1], fw_u32(&p[4]), &p[HEADER], n);
        } else {
            at++;
            fw->rx_bad++;
        }
    }
    fw->rx_n -= at;
    if ((at > 0u) && (fw->rx_n > 0u)) {
        (void)memmove(fw->rx, &fw->rx[at], fw->rx_n);
    }
}

void fw_rx(fw_t *fw, const uint8_t *bytes, uint32_t n)
{
    uint32_t done = 0;
    if ((fw->rx_n > 0u) && (fw->now - fw->rx_us > GAP_US)) {
        parse(fw, true);
    }
    fw->rx_us = fw->now;
    while (done < n) {
        /* a frame that is not whole is shorter than the buffer: there is always room */
        uint32_t room = FW_RX_SIZE - fw->rx_n;
        uint32_t part = (n - done < room) ? n - done : room;
        (void)memcpy(&fw->rx[fw->rx_n], &bytes[done], part);
        fw->rx_n += part;
        done += part;
        parse(fw, false);
    }
    fw_start_if_ready(fw);
    fw_gate_update(fw);
    if (fw->ack_due) {
        fw->ack_due = false;
        fw_send_ack(fw);
    }
}
