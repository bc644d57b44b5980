/* What the C tests share. A test prints nothing unless it fails: so the harness can tell that bruit prints nothing. */
#ifndef TEST_H
#define TEST_H

#include <bruit.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAIL(...) \
    do { \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__); \
        fprintf(stderr, " (last error: %s)\n", bruit_last_error()); \
        exit(1); \
    } while (0)

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            FAIL("%s", #condition); \
    } while (0)

/* The call's result is exactly that. */
#define EQ(call, expected) \
    do { \
        long long got_ = (long long)(call), want_ = (long long)(expected); \
        if (got_ != want_) \
            FAIL("%s is %lld (%s), not %s", #call, got_, bruit_err_name((int)got_), #expected); \
    } while (0)

#define OK(call) EQ(call, BRUIT_OK)

#define STREQ(text, expected) \
    do { \
        const char *got_ = (text), *want_ = (expected); \
        if (got_ == NULL || strcmp(got_, want_) != 0) \
            FAIL("%s is \"%s\", not \"%s\"", #text, got_ ? got_ : "NULL", want_); \
    } while (0)

/* Far longer than anything takes; a test that needs it has failed. */
#define PATIENCE_MS 40000

/* Whether many of anything would take too long, as under valgrind. */
extern int test_few;

/* 127.0.0.1, any port, profile "local"; dispatch is "thread" or "manual". */
bruit_config *test_config(const char *name, const char *dispatch);
bruit_node *test_node(const char *name, const char *dispatch);    /* new, not started */
bruit_node *test_started(const char *name, const char *dispatch); /* new and started */
void test_join(bruit_node *node, const bruit_node *to);
size_t test_known(const bruit_node *node, const char *tag); /* how many members it lists; with that tag, unless it is NULL */
/* Where a node is reached; static storage, of this thread. */
const char *test_address(const bruit_node *node);

long test_now_ms(void);
int test_threads(void); /* of this process */
int test_thread(void);  /* the number of the calling one */
int test_asleep(int thread); /* or gone */
int test_fds(void);
long test_rss_kib(void);

/* Remembers events as "KIND name" in order, and lets a test wait for one. */
typedef struct recorder {
    pthread_mutex_t lock;
    pthread_cond_t more;
    size_t count;
    struct seen {
        uint32_t kind, changed;
        uint64_t view, count;
        int status;
        char name[64], meta[64], address[64];
    } seen[1024];
    int freed;
} recorder;

recorder *recorder_new(void);
void recorder_free(recorder *r);
void recorder_on_event(const bruit_event *event, void *user);
void recorder_freed(void *user); /* a bruit_free_fn that counts */
/* The first event of this kind (about this member, unless name is NULL) from `from` on; its index. Fails after a long time. */
size_t recorder_wait(recorder *r, size_t from, uint32_t kind, const char *name);
/* The same for a node in manual mode, whose events are dispatched here. */
size_t recorder_drive(recorder *r, bruit_node *node, size_t from, uint32_t kind, const char *name);
/* Whether there is one, without waiting. */
int recorder_has(recorder *r, size_t from, uint32_t kind, const char *name);
size_t recorder_count(recorder *r);
int recorder_freed_count(recorder *r);

/* Waits until the condition holds; it is looked at every millisecond. For what nothing signals. */
#define EVENTUALLY(condition) \
    do { \
        long until_ = test_now_ms() + PATIENCE_MS; \
        while (!(condition)) { \
            if (test_now_ms() > until_) \
                FAIL("never: %s", #condition); \
            test_pause(); \
        } \
    } while (0)
void test_pause(void);

#endif
