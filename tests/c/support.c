#include "test.h"

#include <dirent.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bruit_config *test_config(const char *name, const char *dispatch) {
    bruit_config *config = NULL;
    OK(bruit_config_new(&config));
    OK(bruit_config_set(config, "profile", "local"));
    OK(bruit_config_set(config, "name", name));
    OK(bruit_config_set(config, "bind", "127.0.0.1:0"));
    OK(bruit_config_set(config, "dispatch", dispatch));
    return config;
}

bruit_node *test_node(const char *name, const char *dispatch) {
    bruit_node *node = NULL;
    bruit_config *config = test_config(name, dispatch);
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    return node;
}

bruit_node *test_started(const char *name, const char *dispatch) {
    bruit_node *node = test_node(name, dispatch);
    OK(bruit_node_start(node));
    return node;
}

const char *test_address(const bruit_node *node) {
    static __thread char address[64];
    OK(bruit_node_address(node, address, sizeof address, NULL));
    return address;
}

void test_join(bruit_node *node, const bruit_node *to) {
    const char *address = test_address(to);
    EQ(bruit_node_join(node, &address, 1, PATIENCE_MS), 1);
}

size_t test_known(const bruit_node *node, const char *tag) {
    bruit_members *members;
    const bruit_member *holder;
    size_t known;
    OK(bruit_node_members(node, &members));
    known = tag == NULL ? bruit_members_len(members) : bruit_members_with(members, tag, &holder, 1);
    bruit_members_free(members);
    return known;
}

long test_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000;
}

void test_pause(void) {
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, NULL);
}

static int entries(const char *path) {
    DIR *dir = opendir(path);
    int count = 0;
    CHECK(dir != NULL);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 2; /* . and .. */
}

int test_threads(void) {
    return entries("/proc/self/task");
}

int test_thread(void) {
    return (int)syscall(SYS_gettid);
}

int test_asleep(int thread) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 1;
    const char *state = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    return state == NULL || state[2] == 'S';
}

int test_fds(void) {
    return entries("/proc/self/fd") - 1; /* that of the directory itself */
}

long test_rss_kib(void) {
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL);
    EQ(fscanf(file, "%ld %ld", &pages, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

recorder *recorder_new(void) {
    pthread_condattr_t monotonic;
    recorder *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return r;
}

void recorder_free(recorder *r) {
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->more);
    free(r);
}

void recorder_on_event(const bruit_event *event, void *user) {
    recorder *r = user;
    pthread_mutex_lock(&r->lock);
    if (r->count < sizeof r->seen / sizeof *r->seen) {
        struct seen *seen = &r->seen[r->count++];
        seen->kind = event->kind;
        seen->changed = event->changed;
        seen->view = event->view;
        seen->count = event->count;
        seen->status = event->status;
        if (event->member != NULL) {
            const void *meta = "";
            snprintf(seen->name, sizeof seen->name, "%s", event->member->name);
            snprintf(seen->address, sizeof seen->address, "%s", event->member->address);
            bruit_member_meta(event->member, "role", &meta, NULL);
            snprintf(seen->meta, sizeof seen->meta, "%s", (const char *)meta);
        }
    }
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
}

void recorder_freed(void *user) {
    recorder *r = user;
    pthread_mutex_lock(&r->lock);
    r->freed++;
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
}

int recorder_freed_count(recorder *r) {
    pthread_mutex_lock(&r->lock);
    int freed = r->freed;
    pthread_mutex_unlock(&r->lock);
    return freed;
}

/* With the lock held; r->count where there is none. */
static size_t position(const recorder *r, size_t from, uint32_t kind, const char *name) {
    size_t n = from;
    while (n < r->count && !(r->seen[n].kind == kind && (name == NULL || strcmp(r->seen[n].name, name) == 0)))
        n++;
    return n < r->count ? n : r->count;
}

static void complain(const recorder *r, uint32_t kind, const char *name) {
    for (size_t n = 0; n < r->count; n++)
        fprintf(stderr, "  seen: %s %s\n", bruit_event_name(r->seen[n].kind), r->seen[n].name);
    FAIL("never seen: %s %s", bruit_event_name(kind), name ? name : "");
}

size_t recorder_wait(recorder *r, size_t from, uint32_t kind, const char *name) {
    struct timespec until;
    size_t found;
    int late = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&r->lock);
    while ((found = position(r, from, kind, name)) == r->count && !late)
        late = pthread_cond_timedwait(&r->more, &r->lock, &until) != 0;
    if (found == r->count)
        complain(r, kind, name);
    pthread_mutex_unlock(&r->lock);
    return found;
}

size_t recorder_drive(recorder *r, bruit_node *node, size_t from, uint32_t kind, const char *name) {
    long until = test_now_ms() + PATIENCE_MS;
    while (position(r, from, kind, name) == r->count) {
        if (test_now_ms() > until)
            complain(r, kind, name);
        CHECK(bruit_node_wait(node, 1000) >= 0);
        CHECK(bruit_node_dispatch(node, 0) >= 0);
    }
    return position(r, from, kind, name);
}

int recorder_has(recorder *r, size_t from, uint32_t kind, const char *name) {
    pthread_mutex_lock(&r->lock);
    int has = position(r, from, kind, name) < r->count;
    pthread_mutex_unlock(&r->lock);
    return has;
}

size_t recorder_count(recorder *r) {
    pthread_mutex_lock(&r->lock);
    size_t count = r->count;
    pthread_mutex_unlock(&r->lock);
    return count;
}
