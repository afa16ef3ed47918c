/* Where there is no libFuzzer: own mutations of the corpus, by turns, for so many seconds.
 *
 *     fuzz_gcc -seconds=600 corpus_folder...       or      fuzz_gcc file...
 *
 * No coverage guides it. What it tries is written to crash-gcc first and taken away at the end,
 * so an input that ends the process stays.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 4096u
#define SEEDS 512u

typedef struct {
    uint32_t n;
    uint8_t bytes[MOST];
} input_t;

static input_t seed[SEEDS];
static uint32_t n_seeds;
static uint32_t state = 2463534242u;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % below;
}

static void take(const char *path)
{
    FILE *f = fopen(path, "rb");
    if ((f != NULL) && (n_seeds < SEEDS)) {
        seed[n_seeds].n = (uint32_t)fread(seed[n_seeds].bytes, 1, MOST, f);
        n_seeds++;
    }
    if (f != NULL) {
        (void)fclose(f);
    }
}

static void take_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        take(path);
        return;
    }
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        char name[1024];
        if (e->d_name[0] != '.') {
            (void)snprintf(name, sizeof name, "%s/%s", path, e->d_name);
            take(name);
        }
    }
    (void)closedir(folder);
}

static void mutate(input_t *in)
{
    const input_t *other = &seed[draw(n_seeds)];
    for (uint32_t turn = 1u + draw(8); turn > 0u; turn--) {
        uint32_t at = (in->n > 0u) ? draw(in->n) : 0u;
        uint32_t n = 1u + draw(64);
        switch (draw(6)) {
        case 0: /* a bit */
            in->bytes[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 1: /* a byte */
            in->bytes[at] = (uint8_t)draw(256);
            break;
        case 2: /* cut */
            n = (n > in->n - at) ? in->n - at : n;
            (void)memmove(&in->bytes[at], &in->bytes[at + n], in->n - at - n);
            in->n -= n;
            break;
        case 3: /* again */
            n = (n > in->n - at) ? in->n - at : n;
            if (in->n + n <= MOST) {
                (void)memmove(&in->bytes[at + n], &in->bytes[at], in->n - at);
                in->n += n;
            }
            break;
        case 4: /* the rest from another one */
            if (other->n > 0u) {
                uint32_t from = draw(other->n);
                n = other->n - from;
                n = (at + n > MOST) ? MOST - at : n;
                (void)memcpy(&in->bytes[at], &other->bytes[from], n);
                in->n = at + n;
            }
            break;
        default: /* a number at an edge */
            in->bytes[at] = (draw(2) == 0u) ? (uint8_t)0xFF : (uint8_t)0;
            break;
        }
    }
}

int main(int argc, char **argv)
{
    static input_t in;
    long seconds = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-seconds=", 9) == 0) {
            seconds = strtol(&argv[i][9], NULL, 10);
        } else {
            take_folder(argv[i]);
        }
    }
    for (uint32_t i = 0; i < n_seeds; i++) {
        (void)LLVMFuzzerTestOneInput(seed[i].bytes, seed[i].n);
    }
    time_t end = time(NULL) + seconds;
    unsigned long runs = n_seeds;
    while ((n_seeds > 0u) && (seconds > 0) && (time(NULL) < end)) {
        in = seed[draw(n_seeds)];
        mutate(&in);
        FILE *f = fopen("crash-gcc", "wb");
        if (f != NULL) {
            (void)fwrite(in.bytes, 1, in.n, f);
            (void)fclose(f);
        }
        (void)LLVMFuzzerTestOneInput(in.bytes, in.n);
        runs++;
    }
    (void)remove("crash-gcc");
    (void)printf("fuzz: %lu inputs, %u seeds, no crash\n", runs, n_seeds);
    return (n_seeds > 0u) ? 0 : 1;
}
