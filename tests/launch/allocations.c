/* Preloaded before libc by test_memory.py: the bytes of all blocks of 32 KiB or more (tensors, in the main) that this
   process holds, and the most that it held. Every thread's are counted, and every thread's frees. Untouched pages count,
   as they do on a GPU. */

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static _Atomic long held, most;

long held_bytes(void) { return held; }
long most_bytes(void) { return most; }

static long size_of(void *block) {
    size_t size = block ? malloc_usable_size(block) : 0;
    return size < 32768 ? 0 : (long)size;
}

static void *made(void *block) {
    long size = size_of(block);
    if (size) {
        long now = atomic_fetch_add(&held, size) + size, before = most;
        while (now > before && !atomic_compare_exchange_weak(&most, &before, now)) {
        }
    }
    return block;
}

void free(void *block) {
    held -= size_of(block);
    __libc_free(block);
}

void *realloc(void *block, size_t size) {
    long old = size_of(block);
    void *moved = __libc_realloc(block, size);
    if (moved || !size) held -= old;
    return made(moved);
}

void *malloc(size_t size) { return made(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return made(__libc_calloc(count, size)); }
void *memalign(size_t alignment, size_t size) { return made(__libc_memalign(alignment, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
    void *found = memalign(alignment, size);
    if (!found) return ENOMEM;
    *block = found;
    return 0;
}
