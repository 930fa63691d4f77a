/* The benchmark's target: pairs of malloc(64) and free, timed.
 *
 * usage: pairs BATCH_MILLISECONDS [DEPTH]
 *
 * With a depth the pairs are made below that many functions, up to 120, each of which calls the next.
 *
 * Each line on standard input holds a number of batches. The answer is one line, "pairs:" and as many
 * figures: nanoseconds per pair of this thread's CPU time, a slash, and nanoseconds per pair that
 * passed. A batch's length is chosen anew for each line, so that it takes about BATCH_MILLISECONDS
 * whatever a pair costs just then. Ends at the end of the input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct cost {
    double cpu;
    double wall;
};

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

/* Nanoseconds that `pairs` pairs take. */
static __attribute__((noinline)) struct cost run(long pairs) {
    struct cost start = {now(CLOCK_THREAD_CPUTIME_ID), now(CLOCK_MONOTONIC)};
    for (long i = 0; i < pairs; i++) {
        void *block = malloc(64);
        /* The compiler must believe that somebody looks at the block. */
        __asm__ volatile("" : "+r"(block) : : "memory");
        free(block);
    }
    return (struct cost){now(CLOCK_THREAD_CPUTIME_ID) - start.cpu, now(CLOCK_MONOTONIC) - start.wall};
}

typedef struct cost link_function(long pairs);

/* Each at some distance from the others, as functions of a program are. */
#define LINK(name, next)                                                                               \
    static __attribute__((noinline, noclone, aligned(1024))) struct cost name(long pairs) {            \
        struct cost cost = next(pairs);                                                                \
        /* So that the call is no jump. */                                                             \
        __asm__ volatile("");                                                                          \
        return cost;                                                                                   \
    }
#define TEN_LINKS(name, next)                                                                          \
    LINK(name##0, next) LINK(name##1, name##0) LINK(name##2, name##1) LINK(name##3, name##2)           \
    LINK(name##4, name##3) LINK(name##5, name##4) LINK(name##6, name##5) LINK(name##7, name##6)        \
    LINK(name##8, name##7) LINK(name##9, name##8)
#define TEN(name) name##0, name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8, name##9

TEN_LINKS(a, run) TEN_LINKS(b, a9) TEN_LINKS(c, b9) TEN_LINKS(d, c9) TEN_LINKS(e, d9) TEN_LINKS(f, e9)
TEN_LINKS(g, f9) TEN_LINKS(h, g9) TEN_LINKS(i, h9) TEN_LINKS(j, i9) TEN_LINKS(k, j9) TEN_LINKS(l, k9)

static link_function *const chain[] = {run,    TEN(a), TEN(b), TEN(c), TEN(d), TEN(e), TEN(f),
                                       TEN(g), TEN(h), TEN(i), TEN(j), TEN(k), TEN(l)};

int main(int argc, char **argv) {
    double batch = argc > 1 ? atof(argv[1]) * 1e6 : 0;
    long depth = argc > 2 ? atol(argv[2]) : 0;
    if (batch <= 0 || depth < 0 || depth >= (long)(sizeof chain / sizeof *chain)) {
        fprintf(stderr, "usage: pairs BATCH_MILLISECONDS [DEPTH]\n");
        return 2;
    }
    link_function *measured = chain[depth];
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long pairs = 500;
        double time = measured(pairs).cpu;
        while (time < batch / 4) {
            pairs *= 2;
            time = measured(pairs).cpu;
        }
        pairs = (long)(pairs * (batch / time)) + 1;
        printf("pairs:");
        for (int left = atoi(line); left > 0; left--) {
            struct cost cost = measured(pairs);
            printf(" %.2f/%.2f", cost.cpu / pairs, cost.wall / pairs);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
