/* Power laws: what the output becomes when the path is played at another speed than planned.
 *
 * A law g(r), r = speed / nominal, is a table of points between which log g runs straight over
 * log r, so a power of r needs two points and is exact everywhere. With P planned at r, the
 * scale s gives floor + (P - floor) g(s r) / g(r) (docs/protocol.md, section 6).
 */
#include "fw_internal.h"

#define LOG_ONE (1 << 20)
#define LEAST_EXPONENT (-24 * LOG_ONE)
#define MOST_EXPONENT (4 * LOG_ONE)

/* 2^20 log2(1 + i/64), and 2^24 2^(i/64) */
static const uint32_t LOG2[65] = {
    0u, 23454u, 46551u, 69300u, 91711u, 113796u, 135563u, 157021u,
    178179u, 199045u, 219628u, 239934u, 259971u, 279746u, 299266u, 318537u,
    337566u, 356359u, 374920u, 393257u, 411375u, 429278u, 446971u, 464460u,
    481749u, 498843u, 515745u, 532461u, 548995u, 565349u, 581529u, 597537u,
    613378u, 629054u, 644570u, 659928u, 675132u, 690185u, 705089u, 719848u,
    734464u, 748941u, 763280u, 777484u, 791557u, 805500u, 819315u, 833005u,
    846573u, 860020u, 873348u, 886561u, 899658u, 912644u, 925518u, 938284u,
    950944u, 963498u, 975949u, 988298u, 1000547u, 1012698u, 1024752u, 1036711u,
    1048576u,
};

static const uint32_t EXP2[65] = {
    16777216u, 16959908u, 17144589u, 17331282u, 17520007u, 17710787u, 17903645u, 18098603u,
    18295684u, 18494911u, 18696307u, 18899897u, 19105703u, 19313750u, 19524063u, 19736666u,
    19951585u, 20168843u, 20388467u, 20610483u, 20834917u, 21061794u, 21291142u, 21522987u,
    21757357u, 21994279u, 22233781u, 22475891u, 22720638u, 22968049u, 23218155u, 23470984u,
    23726566u, 23984932u, 24246111u, 24510133u, 24777031u, 25046835u, 25319578u, 25595290u,
    25874004u, 26155754u, 26440571u, 26728490u, 27019544u, 27313768u, 27611195u, 27911861u,
    28215802u, 28523052u, 28833647u, 29147625u, 29465022u, 29785875u, 30110222u, 30438101u,
    30769550u, 31104608u, 31443315u, 31785710u, 32131834u, 32481727u, 32835430u, 33192984u,
    33554432u,
};

/* log2 of v >= 1, Q20; error below 5e-5. */
static int32_t log2_of(uint32_t v)
{
    uint32_t m = (v == 0u) ? 1u : v;
    int32_t e = 31;
    while (m < 0x80000000u) {
        m <<= 1;
        e--;
    }
    uint32_t i = (m >> 25) & 63u;
    uint32_t part = (m >> 9) & 0xFFFFu;
    uint32_t f = LOG2[i] + (((LOG2[i + 1u] - LOG2[i]) * part) >> 16);
    return e * LOG_ONE + (int32_t)f;
}

/* 2^y, y Q20, as Q24. */
static uint32_t exp2_of(int32_t y)
{
    int32_t x = (y < LEAST_EXPONENT) ? LEAST_EXPONENT : y;
    x = (x > MOST_EXPONENT) ? MOST_EXPONENT : x;
    uint32_t up = (uint32_t)(x + 24 * LOG_ONE); /* >= 0 */
    uint32_t i = (up >> 14) & 63u;
    uint32_t part = up & 0x3FFFu;
    uint32_t f = EXP2[i] + (uint32_t)(((uint64_t)(EXP2[i + 1u] - EXP2[i]) * part) >> 14);
    uint32_t e = up >> 20; /* 24: as it is */
    return (e >= 24u) ? (f << (e - 24u)) : (f >> (24u - e));
}

/* log g at log r; the first and the last piece go on. */
static int32_t log_g(const fw_law_t *law, int32_t x)
{
    uint32_t i = 0;
    while ((i + 2u < law->n) && (x > law->x[i + 1u])) {
        i++;
    }
    int64_t rise = (int64_t)law->y[i + 1u] - law->y[i];
    int64_t run = (int64_t)law->x[i + 1u] - law->x[i];
    return law->y[i] + (int32_t)((rise * ((int64_t)x - law->x[i])) / run);
}

bool fw_law_known(const fw_t *fw, uint32_t law)
{
    return (law == 0u) || ((law <= FW_LAWS) && (fw->laws[law - 1u].n > 0u));
}

/* LAW: number, points used, then 17 pairs. */
uint32_t fw_law_take(fw_t *fw, const uint8_t *p)
{
    uint32_t number = p[0];
    uint32_t n = p[1];
    if (fw_queue_count(fw) > 0u) {
        return FW_NAK_STATE;
    }
    if ((number < 1u) || (number > FW_LAWS) || (n < 2u) || (n > FW_LAW_POINTS)) {
        return FW_NAK_RANGE;
    }
    fw_law_t law = {.n = n};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t r = fw_u16(&p[2u + 6u * i]);
        uint32_t g = fw_u32(&p[4u + 6u * i]);
        law.x[i] = log2_of(r) - 15 * LOG_ONE;
        law.y[i] = log2_of(g) - 24 * LOG_ONE;
        bool rises = (i == 0u) || ((law.x[i] > law.x[i - 1u]) && (law.y[i] >= law.y[i - 1u]));
        if ((r == 0u) || (g == 0u) || !rises) {
            return FW_NAK_RANGE;
        }
    }
    fw->laws[number - 1u] = law;
    return FW_OK;
}

/* Cap of a PARAM record; above 20 bits it is none that can be. */
uint32_t fw_param_cap(const fw_segment_t *s)
{
    uint32_t low = (uint32_t)s->d[1] & 0xFFFFu;
    return low | (((uint32_t)s->d[2] & 0xFFFFu) << 16);
}

/* Speed / nominal at a segment's start. The segment says it itself but where it ends slow:
 * there it is what the segment before ended with. */
void fw_law_segment(fw_t *fw, const fw_segment_t *s)
{
    uint32_t start = fw->speed_before;
    if ((s->ratio <= 32768u) || ((s->speed >= 4096u) && (s->ratio <= 61440u))) {
        start = (uint32_t)(((uint64_t)s->speed * s->ratio) / (65536u - (uint32_t)s->ratio));
    }
    fw->speed_start = (start > 65535u) ? 65535u : start;
}

/* Power at scale (Q24) of what is planned as `power`, above the floor. */
int64_t fw_law_scaled(const fw_t *fw, int64_t power, int32_t scale)
{
    const fw_segment_t *s = &fw->queue[fw->tail & (FW_QUEUE - 1u)];
    int64_t floor = (int64_t)fw->power_floor;
    bool dwell = (s->flags & FW_FLAG_DWELL) != 0u;
    int64_t change = (int64_t)s->speed - (int64_t)fw->speed_start;
    int64_t r = (int64_t)fw->speed_start + ((change * (int64_t)fw->x) / ((int64_t)1 << 30));
    int64_t factor = scale;
    if ((scale == FW_SCALE_ONE) || (scale <= 0)) {
        return (scale <= 0) ? floor : power;
    }
    if ((fw->law != 0u) && !dwell) {
        const fw_law_t *law = &fw->laws[fw->law - 1u];
        int32_t at = log2_of((uint32_t)((r < 1) ? 1 : r)) - 15 * LOG_ONE;
        int32_t there = at + log2_of((uint32_t)scale) - 24 * LOG_ONE;
        factor = (int64_t)exp2_of(log_g(law, there) - log_g(law, at));
    }
    int64_t p = floor + (((power - floor) * factor) >> 24);
    if ((fw->cap != 0u) && !dwell) {
        int64_t cap = ((((int64_t)fw->cap * r) >> 15) * (int64_t)scale) >> 24;
        p = (p > cap) ? cap : p;
    }
    return p;
}
