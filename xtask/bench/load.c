/* The targets of the benchmark's second part: a known load under which memtrace's own cost is read.
 *
 * usage: load rate CALLS_PER_SECOND     pairs of malloc(64) and free, at that many calls a second
 *        load hold BLOCKS               that many live blocks, from 1,024 different stacks
 *
 * Both answer "ready" at once, begin at a line on standard input, and end at the end of the input;
 * `hold` answers "held" when all blocks are there, `rate` ends once the input does.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OPAQUE(value) __asm__ volatile("" : "+r"(value) : : "memory")

static void say(const char *word) {
    puts(word);
    fflush(stdout);
}

static int input_ended(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) != 0;
}

/* A millisecond's share of the calls each millisecond. After being held up it catches up. */
static void keep_rate(long calls_per_second) {
    long pairs = calls_per_second / 2 / 1000;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!input_ended()) {
        for (long i = 0; i < pairs; i++) {
            void *block = malloc(64);
            OPAQUE(block);
            free(block);
        }
        next.tv_nsec += 1000000;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
}

/* One block from the stack that the lowest ten bits of `path` spell: each bit chooses between two calls. */
static __attribute__((noinline)) void *allocate(unsigned path, int depth) {
    void *block;
    if (depth == 10) {
        block = malloc(64);
    } else if (path & 1) {
        block = allocate(path >> 1, depth + 1);
    } else {
        block = allocate(path >> 1, depth + 1);
        /* Keeps the compiler from merging the two calls. */
        OPAQUE(block);
    }
    OPAQUE(block);
    return block;
}

int main(int argc, char **argv) {
    long amount = argc == 3 ? atol(argv[2]) : 0;
    if (amount <= 0) {
        fprintf(stderr, "usage: load rate CALLS_PER_SECOND | load hold BLOCKS\n");
        return 2;
    }
    char line[16];
    /* Not stdio: its buffer for standard input would be one more allocation, and hide the end. */
    say("ready");
    if (read(0, line, sizeof line) <= 0)
        return 0;
    if (strcmp(argv[1], "rate") == 0) {
        keep_rate(amount);
    } else {
        for (long i = 0; i < amount; i++)
            if (!allocate(i, 0))
                return 1;
        say("held");
        while (read(0, line, sizeof line) > 0)
            ;
    }
    return 0;
}
