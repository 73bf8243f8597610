#include "tuner/many.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const useconds_t look_us = 20000;

/* --- which devices --- */

/* What stands before the next comma; returns what stands behind it, NULL at the end. */
static const char *next_id(const char *list, char id[16]) {
    size_t length = strcspn(list, ",");
    snprintf(id, 16, "%.*s", (int)length, list);
    return list[length] ? list + length + 1 : NULL;
}

static bool single(const char *list) {
    return !strchr(list, ',') && strcmp(list, "all") != 0;
}

int many_check_list(const char *list, struct error *error) {
    static const char several[] = "several devices are cuda:0,cuda:1 or all";
    struct error cause;
    char id[16];
    bool one = single(list);
    if (!strcmp(list, "all")) return 0;
    for (const char *rest = list; rest;) {
        rest = next_id(rest, id);
        if (device_check_id(id, &cause)) return error_set(error, "%s; %s", cause.text, several);
        if (!one && !strcmp(id, "auto")) return error_set(error, "auto chooses one device; %s", several);
    }
    return 0;
}

static const char *describe(const struct device *d, char text[192]) {
    snprintf(text, 192, "%s is %s, %s, %d %s", d->id, d->name, d->architecture, d->multiprocessors,
             d->backend == BACKEND_CUDA ? "SMs" : "cores");
    return text;
}

int many_check_pair(const struct device *first, const struct device *other, struct error *error) {
    char one[192], another[192];
    if (strcmp(first->name, other->name) || strcmp(first->architecture, other->architecture) ||
        first->multiprocessors != other->multiprocessors)
        return error_set(error, "%s, and %s: a table is of one card; tune on each kind by a command of its own",
                         describe(first, one), describe(other, another));
    if (first->uuid[0] && !strcmp(first->uuid, other->uuid))
        return error_set(error, "%s and %s are the same GPU: only one search at a time can measure on it", first->id,
                         other->id);
    return 0;
}

static int add_device(struct many *many, const char *id, struct supervisor *supervisor, struct error *error) {
    if (many->count == MANY_DEVICES) return error_set(error, "at most %d devices are tuned at once", MANY_DEVICES);
    if (supervisor_open(supervisor, id, error)) return -1;
    supervisor_close(supervisor);
    for (int i = 0; i < many->count; i++)
        if (many_check_pair(&many->devices[i], &supervisor->device, error)) return -1;
    many->devices[many->count++] = supervisor->device;
    return 0;
}

static int add_all(struct many *many, struct supervisor *supervisor, struct error *error) {
    struct error why = {""};
    int gpus = device_cuda_count(&why);
    if (!gpus) return error_set(error, "no GPU: %s; `--device cpu` works", why.text);
    for (int i = 0; i < gpus; i++) {
        char id[16];
        snprintf(id, sizeof id, "cuda:%d", i);
        if (add_device(many, id, supervisor, &why)) fprintf(stderr, "tilebook: %s is left out: %s\n", id, why.text);
    }
    return many->count ? 0 : error_set(error, "none of %d GPUs can be used; `--device cpu` works", gpus);
}

static int add_listed(struct many *many, const char *list, struct supervisor *supervisor, struct error *error) {
    char id[16];
    for (const char *rest = list; rest;) {
        rest = next_id(rest, id);
        if (add_device(many, id, supervisor, error)) return -1;
    }
    return 0;
}

int many_open(struct many *many, const char *list, struct supervisor *supervisor, struct error *error) {
    many->count = 0;
    if (single(list)) {
        if (supervisor_open(supervisor, list, error)) return -1;
        many->devices[many->count++] = supervisor->device;
        return 0;
    }
    int status = strcmp(list, "all") ? add_listed(many, list, supervisor, error) : add_all(many, supervisor, error);
    supervisor->device = many->devices[0];
    return status;
}

/* --- stretches of problems --- */

struct stretch {
    int first, count;
};

/* By its number from 0; behind the last one the count is 0. */
static struct stretch find_stretch(const struct tune *tune, int number) {
    const struct tune_item *items = tune->items;
    struct stretch s = {0, 0};
    for (; number >= 0; number--) {
        s.first += s.count;
        s.count = 0;
        while (s.first + s.count < tune->count && tune_neighbours(&items[s.first], &items[s.first + s.count]))
            s.count++;
    }
    return s;
}

static int count_stretches(const struct tune *tune) {
    int count = 0;
    while (find_stretch(tune, count).count) count++;
    return count;
}

/* As a tune of its own, to be freed whatever is returned. What was seen of the card is carried on: one warning is
 * enough. */
static int run_stretch(struct tune *tune, struct stretch s, struct tune *part, struct error *error) {
    *part = *tune;
    part->budget_s = tune->budget_s * s.count / tune->count;
    part->count = 0;
    part->items = malloc((size_t)s.count * sizeof *part->items);
    if (!part->items) return error_set(error, "out of memory");
    memcpy(part->items, tune->items + s.first, (size_t)s.count * sizeof *part->items);
    part->count = s.count;
    int status = tune_run(part, error);
    tune->watch = part->watch;
    return status;
}

/* --- a process for each device --- */

/* What the processes have in common. */
struct shared {
    atomic_int next;      /* stretch that nobody has taken */
    atomic_int done, new; /* problems; trials that were measured */
    volatile sig_atomic_t stop;
};

/* Takes stretches until none is left. */
static int take_stretches(struct tune *tune, struct shared *shared, struct error *error) {
    char label[64];
    int total = count_stretches(tune), number, status = 0;
    tune->progress->label = label;
    while (!status && (number = atomic_fetch_add(&shared->next, 1)) < total) {
        struct stretch s = find_stretch(tune, number);
        struct tune part;
        snprintf(label, sizeof label, "%s, %d of %d: ", tune->device->id, number + 1, total);
        status = run_stretch(tune, s, &part, error);
        atomic_fetch_add(&shared->new, part.fresh);
        if (!status) atomic_fetch_add(&shared->done, s.count);
        tune_free(&part);
    }
    return status;
}

/* In a process that has nothing open yet. A stream of its own writes each line at once, between those of others. */
static int tune_on(const struct device *device, const struct tune *all, struct shared *shared, const char *store,
                   struct error *error) {
    struct supervisor supervisor = {
        .kernels = all->supervisor->kernels, .limit_s = all->supervisor->limit_s, .device = *device};
    struct progress progress;
    struct tune tune = *all;
    FILE *lines = fdopen(dup(STDERR_FILENO), "w");
    if (!lines) return error_set(error, "standard error: %s", strerror(errno));
    progress_start(&progress, lines);
    progress.terminal = false;
    tune.progress = &progress;
    tune.supervisor = &supervisor;
    tune.device = &supervisor.device;
    tune.scope.uuid = supervisor.device.uuid;
    tune.interrupted = &shared->stop;
    int status = store_open(store, &tune.store, error);
    if (!status) status = take_stretches(&tune, shared, error);
    supervisor_close(&supervisor);
    store_close(tune.store);
    fclose(lines);
    return status;
}

/* What a terminal sends reaches all of them: the first process decides when to stop, and its end is theirs. */
static pid_t start(const struct device *device, const struct tune *tune, struct shared *shared, const char *store) {
    pid_t parent = getpid(), child = fork();
    struct error error;
    if (child) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    int status = tune_on(device, tune, shared, store, &error);
    if (status < 0) fprintf(stderr, "tilebook: %s: %s\n", device->id, error.text);
    _exit(status < 0);
}

static void tell_killed(const struct device *device, int status) {
    if (WIFSIGNALED(status))
        fprintf(stderr, "tilebook: %s: the search was ended by signal %d (%s)\n", device->id, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
}

/* Until all have ended; an interrupt is passed on. */
static void await_all(const struct many *many, pid_t *children, const struct tune *tune, struct shared *shared) {
    int left = 0, status;
    for (int i = 0; i < many->count; i++) left += children[i] > 0;
    for (; left; usleep(look_us)) {
        if (*tune->interrupted) shared->stop = 1;
        for (int i = 0; i < many->count; i++) {
            if (children[i] <= 0 || waitpid(children[i], &status, WNOHANG) != children[i]) continue;
            tell_killed(&many->devices[i], status);
            children[i] = 0;
            left--;
        }
    }
}

static void run_processes(const struct many *many, struct tune *tune, struct shared *shared, const char *store) {
    pid_t children[MANY_DEVICES];
    for (int i = 0; i < many->count; i++) {
        children[i] = start(&many->devices[i], tune, shared, store);
        if (children[i] < 0)
            fprintf(stderr, "tilebook: %s: the search cannot be started: %s\n", many->devices[i].id, strerror(errno));
    }
    await_all(many, children, tune, shared);
}

/* --- what they have stored --- */

static int append(struct tune *to, struct tune *part, struct error *error) {
    struct tune_item *items = realloc(to->items, (size_t)(to->count + part->count) * sizeof *items);
    if (!items) return error_set(error, "out of memory");
    memcpy(items + to->count, part->items, (size_t)part->count * sizeof *items);
    to->items = items;
    to->count += part->count;
    to->inserted += part->inserted;
    to->fresh += part->fresh;
    free(part->items);
    part->items = NULL;
    part->count = 0;
    return 0;
}

/* All stretches once more, in silence: each finds its trials in the store, and none is new. */
static int gather(struct tune *tune, struct error *error) {
    static const volatile sig_atomic_t never;
    struct progress silent = {.stream = NULL};
    struct tune reader = *tune, found = {.items = NULL}, part;
    int status = 0;
    reader.progress = &silent;
    reader.interrupted = &never;
    reader.compile = NULL;
    reader.forget = false;
    reader.fresh = 0;
    for (int i = 0; !status && find_stretch(tune, i).count; i++) {
        status = run_stretch(&reader, find_stretch(tune, i), &part, error);
        if (!status) status = append(&found, &part, error);
        tune_free(&part);
    }
    tune_free(status ? &found : tune);
    if (status) return status;
    tune->items = found.items;
    tune->count = found.count;
    tune->inserted = found.inserted;
    tune->fresh += found.fresh;
    tune->watch = reader.watch;
    return 0;
}

/* The store is made before others look for it, and is not open here while they are started. */
static int search_all(struct many *many, struct tune *tune, struct shared *shared, const char *store,
                      struct error *error) {
    if (store_open(store, &tune->store, error)) return -1;
    store_close(tune->store);
    tune->store = NULL;
    tune->devices = many->count;
    run_processes(many, tune, shared, store);
    tune->fresh = shared->new;
    many->open = tune->count - shared->done;
    if (many->open && *tune->interrupted) return TUNE_INTERRUPTED;
    if (many->open)
        return error_set(error, "%d of %d problems are open, and no table is written; the same command goes on",
                         many->open, tune->count);
    return store_open(store, &tune->store, error) ? -1 : gather(tune, error);
}

int many_run(struct many *many, struct tune *tune, const char *store, struct error *error) {
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return error_set(error, "memory for several processes: %s", strerror(errno));
    int status = search_all(many, tune, shared, store, error);
    munmap(shared, sizeof *shared);
    return status;
}
