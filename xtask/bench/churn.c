/* The soak test's target: eight threads that allocate and free blocks of mixed sizes for ever, in all
 * ways that are common, and beside them threads that live only for a moment.
 *
 * usage: churn
 *
 * What it holds, and the number of its different stacks, stay the same on average: whoever watches it has
 * no reason to grow. Says "ready" once it is at work. Ends at the end of its input.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 8, SLOTS = 512, SHORT_LIVED_PER_SECOND = 20 };

/* Blocks that one thread has left for another to free. */
static _Atomic(void *) handed_over[64];

static uint64_t next(uint64_t *state) {
    /* xorshift64 (Marsaglia 2003). */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Mostly small, sometimes large, as programs have it: 1 byte to 128 KiB. */
static size_t size(uint64_t random) {
    return 1 + (random >> 40) % ((size_t)16 << (random % 14));
}

static void *make(uint64_t random, void *old) {
    size_t bytes = size(random >> 4);
    void *block = NULL;
    switch (random % 8) {
    case 0:
        return realloc(old, bytes);
    case 1:
        block = calloc(1 + bytes / 16, 16);
        break;
    case 2:
        if (posix_memalign(&block, 64, bytes) != 0)
            abort();
        break;
    case 3:
        block = aligned_alloc(32, (bytes + 31) & ~(size_t)31);
        break;
    default:
        block = malloc(bytes);
    }
    free(old);
    return block;
}

static void step(void **slots, uint64_t *state) {
    uint64_t random = next(state);
    void **slot = &slots[(random >> 16) % SLOTS];
    *slot = make(random, *slot);
    if (!*slot)
        abort();
    memset(*slot, 1, 1);
    if (random % 64 == 0)
        *slot = atomic_exchange(&handed_over[(random >> 32) % 64], *slot);
}

static void *churn(void *seed) {
    void *slots[SLOTS] = {0};
    uint64_t state = (uintptr_t)seed;
    for (;;)
        step(slots, &state);
    return NULL;
}

/* Leaves nothing behind. */
static void *live_shortly(void *seed) {
    void *slots[SLOTS] = {0};
    uint64_t state = (uintptr_t)seed;
    for (int i = 0; i < 100; i++)
        step(slots, &state);
    for (int i = 0; i < SLOTS; i++)
        free(slots[i]);
    return NULL;
}

static void start(pthread_t *thread, void *(*run)(void *), uintptr_t seed) {
    if (pthread_create(thread, NULL, run, (void *)(seed * 2654435761u + 1)) != 0)
        abort();
}

int main(void) {
    pthread_t thread;
    for (uintptr_t i = 0; i < THREADS; i++)
        start(&thread, churn, i);
    puts("ready");
    fflush(stdout);
    struct timespec pause = {0, 1000000000 / SHORT_LIVED_PER_SECOND};
    struct pollfd input = {.fd = 0, .events = POLLIN};
    for (uintptr_t round = 0; poll(&input, 1, 0) == 0; round++) {
        start(&thread, live_shortly, THREADS + round);
        if (pthread_join(thread, NULL) != 0)
            abort();
        nanosleep(&pause, NULL);
    }
    return 0;
}
