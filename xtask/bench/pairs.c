/* The benchmark's target: pairs of malloc(64) and free, timed.
 *
 * usage: pairs BATCH_MILLISECONDS
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
static struct cost run(long pairs) {
    struct cost start = {now(CLOCK_THREAD_CPUTIME_ID), now(CLOCK_MONOTONIC)};
    for (long i = 0; i < pairs; i++) {
        void *block = malloc(64);
        /* The compiler must believe that somebody looks at the block. */
        __asm__ volatile("" : "+r"(block) : : "memory");
        free(block);
    }
    return (struct cost){now(CLOCK_THREAD_CPUTIME_ID) - start.cpu, now(CLOCK_MONOTONIC) - start.wall};
}

int main(int argc, char **argv) {
    double batch = argc > 1 ? atof(argv[1]) * 1e6 : 0;
    if (batch <= 0) {
        fprintf(stderr, "usage: pairs BATCH_MILLISECONDS\n");
        return 2;
    }
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long pairs = 500;
        double time = run(pairs).cpu;
        while (time < batch / 4) {
            pairs *= 2;
            time = run(pairs).cpu;
        }
        pairs = (long)(pairs * (batch / time)) + 1;
        printf("pairs:");
        for (int left = atoi(line); left > 0; left--) {
            struct cost cost = run(pairs);
            printf(" %.2f/%.2f", cost.cpu / pairs, cost.wall / pairs);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
