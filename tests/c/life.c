/* One node's life: states, what is refused when, and that nothing is left behind. */
#include "test.h"

#include <errno.h>
#include <poll.h>

void test_life(void) {
    char address[64];
    size_t len;
    bruit_members *members = NULL;
    bruit_node *node = test_node("life", "thread"), *other = NULL;

    EQ(bruit_node_state(node), BRUIT_NODE_NEW);
    EQ(bruit_node_view(node), 0);
    EQ(bruit_node_members(node, &members), BRUIT_E_STATE);
    EQ(bruit_node_leave(node, 0), BRUIT_E_STATE);
    const char *nobody = "127.0.0.1:1";
    EQ(bruit_node_join(node, &nobody, 1, 0), BRUIT_E_STATE);

    OK(bruit_node_start(node));
    EQ(bruit_node_state(node), BRUIT_NODE_RUNNING);
    EQ(bruit_node_start(node), BRUIT_E_STATE);
    OK(bruit_node_address(node, address, sizeof address, &len));
    EQ(len, strlen(address));
    CHECK(strncmp(address, "127.0.0.1:", 10) == 0 && atoi(address + 10) > 0);
    EQ(bruit_node_address(node, address, 5, &len), BRUIT_E_BUFFER);
    EQ(len, strlen(address) + 1);
    EQ(bruit_node_leave(node, -2), BRUIT_E_INVALID);

    /* A start that fails leaves the node NEW. Options that are not live stay as they are. */
    bruit_config *config = test_config("late", "thread");
    OK(bruit_config_set(config, "bind", address));
    OK(bruit_node_new(config, &other));
    OK(bruit_config_free(config));
    EQ(bruit_node_start(other), BRUIT_E_IO);
    EQ(bruit_last_errno(), EADDRINUSE);
    EQ(bruit_node_state(other), BRUIT_NODE_NEW);
    OK(bruit_node_set(node, "gossip_fanout", "4"));
    EQ(bruit_node_set(node, "bind", "127.0.0.1:1"), BRUIT_E_STATE);
    EQ(bruit_node_set(node, "gossip_fanout", "many"), BRUIT_E_INVALID);
    EQ(bruit_node_set(node, "no_such_option", "1"), BRUIT_E_NOT_FOUND);

    const char *malformed = "host:port:more";
    EQ(bruit_node_join(node, &malformed, 1, 0), BRUIT_E_ADDRESS);

    OK(bruit_node_leave(node, PATIENCE_MS));
    EQ(bruit_node_state(node), BRUIT_NODE_LEFT);
    OK(bruit_node_stop(node, -1));
    OK(bruit_node_stop(node, 0));
    EQ(bruit_node_state(node), BRUIT_NODE_STOPPED);
    EQ(bruit_node_start(node), BRUIT_E_STATE);
    /* The last view is still there. */
    OK(bruit_node_members(node, &members));
    EQ(bruit_members_len(members), 1);
    OK(bruit_node_free(node));
    STREQ(bruit_members_local(members)->name, "life"); /* and outlives the node */
    bruit_members_free(members);

    /* Now the port is free. */
    OK(bruit_node_start(other));
    OK(bruit_node_free(other));
}

void test_rounds(void) {
    int fds = 0;
    long rss = 0;
    for (int round = 0; round < 500; round++) {
        bruit_node *node = test_started("rounds", round % 2 ? "thread" : "manual");
        if (round % 3 == 0)
            OK(bruit_node_stop(node, -1));
        OK(bruit_node_free(node));
        if (round == 50) { /* what is made once is made by now */
            EVENTUALLY(test_threads() == 1); /* one that was joined may be listed for a moment yet */
            fds = test_fds();
            rss = test_rss_kib();
        }
    }
    EVENTUALLY(test_threads() == 1);
    EQ(test_fds(), fds);
    if (test_rss_kib() > rss + 4096)
        FAIL("450 rounds took %ld KiB", test_rss_kib() - rss);
}

typedef struct waiter {
    bruit_node *node;
    pthread_mutex_t lock;
    pthread_cond_t begun;
    int count, threads[2];
} waiter;

static void begins(waiter *w) {
    pthread_mutex_lock(&w->lock);
    w->threads[w->count++] = test_thread();
    pthread_cond_signal(&w->begun);
    pthread_mutex_unlock(&w->lock);
}

static void *waits_for_events(void *user) {
    waiter *w = user;
    int rc;
    begins(w);
    while ((rc = bruit_node_wait(w->node, -1)) == 1)
        if (bruit_node_dispatch(w->node, 0) < 0)
            break;
    CHECK(rc <= 1);
    return NULL;
}

static void *waits_for_nobody(void *user) {
    waiter *w = user;
    const char *nobody = "127.0.0.1:1";
    begins(w);
    CHECK(bruit_node_join(w->node, &nobody, 1, -1) < 0);
    return NULL;
}

/* No call hangs on a node that another thread stops. */
void test_stopped_waits(void) {
    for (int round = 0; round < 20; round++) {
        pthread_t threads[2];
        waiter w = {test_started("stops", "manual"), PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, {0, 0}};
        CHECK(pthread_create(&threads[0], NULL, waits_for_events, &w) == 0);
        CHECK(pthread_create(&threads[1], NULL, waits_for_nobody, &w) == 0);
        pthread_mutex_lock(&w.lock);
        while (w.count < 2)
            pthread_cond_wait(&w.begun, &w.lock);
        pthread_mutex_unlock(&w.lock);
        if (round % 2) { /* they wait, rather than are about to: both have to end */
            EVENTUALLY(test_asleep(w.threads[0]));
            EVENTUALLY(test_asleep(w.threads[1]));
        }
        OK(bruit_node_stop(w.node, -1));
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
        OK(bruit_node_free(w.node));
    }
}

/* main may return with nodes running, callbacks and all. */
void test_exit_while_running(void) {
    bruit_node *a = test_node("a", "thread"), *b = test_started("b", "manual");
    static recorder *r;
    r = recorder_new();
    OK(bruit_node_on_event(a, BRUIT_EVENT_ALL, recorder_on_event, r, recorder_freed, NULL));
    OK(bruit_node_start(a));
    test_join(b, a);
}

static int readable(int fd) {
    struct pollfd poller = {fd, POLLIN, 0};
    int count = poll(&poller, 1, PATIENCE_MS); /* an event may be seen a moment before its signal */
    CHECK(count >= 0);
    return count;
}

static void *wakes(void *node) {
    OK(bruit_node_wakeup(node));
    return NULL;
}

void test_waiting(void) {
    bruit_node *node = test_node("waits", "manual"), *peer = test_started("peer", "thread");
    recorder *r = recorder_new();
    int fd = bruit_node_event_fd(node);
    CHECK(fd >= 0);
    OK(bruit_node_on_event(node, BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, NULL));
    OK(bruit_node_start(node));
    EQ(bruit_node_event_fd(node), fd);

    /* Level-triggered: readable until all is dispatched, and again with the next event. */
    test_join(node, peer);
    while (!recorder_has(r, 0, BRUIT_EVENT_JOIN, "peer")) {
        EQ(bruit_node_wait(node, PATIENCE_MS), 1);
        EQ(readable(fd), 1);
        EQ(bruit_node_dispatch(node, 1), 1);
    }
    while (bruit_node_dispatch(node, 0) > 0)
        ;

    /* A wakeup ends a wait, whether it comes before or while. */
    pthread_t waker;
    OK(bruit_node_stop(peer, -1));
    CHECK(pthread_create(&waker, NULL, wakes, node) == 0);
    int rc;
    while ((rc = bruit_node_wait(node, PATIENCE_MS)) == 1)
        CHECK(bruit_node_dispatch(node, 0) >= 0);
    OK(rc);
    pthread_join(waker, NULL);
    CHECK(bruit_node_wait(node, 0) >= 0);
    EQ(bruit_node_wait(node, -5), BRUIT_E_INVALID);

    /* A node with threads has none of this. */
    bruit_node *threaded = test_started("threaded", "thread");
    EQ(bruit_node_event_fd(threaded), BRUIT_E_STATE);
    EQ(bruit_node_dispatch(threaded, 0), BRUIT_E_STATE);
    EQ(bruit_node_wait(threaded, 0), BRUIT_E_STATE);
    const bruit_event *event = NULL;
    EQ(bruit_node_next_event(threaded, &event), BRUIT_E_STATE);

    OK(bruit_node_free(threaded));
    OK(bruit_node_free(peer));
    OK(bruit_node_free(node));
    EQ(recorder_freed_count(r), 1);
    recorder_free(r);
}

void test_statistics(void) {
    uint64_t value = 99;
    size_t count = 0;
    bruit_node *node = test_started("counts", "thread"), *peer = test_started("peer", "thread");
    test_join(node, peer);

    const bruit_stat_desc *descs = bruit_stat_descs(&count);
    for (size_t n = 0; n < count; n++)
        OK(bruit_node_stat(node, descs[n].name, &value));
    value = 99;
    EQ(bruit_node_stat(node, "no_such_counter", &value), BRUIT_E_NOT_FOUND);
    EQ(value, 99);

    union {
        bruit_stats stats;
        uint64_t words[sizeof(bruit_stats) / 8 + 4];
    } out;
    memset(&out, 0xaa, sizeof out);
    out.stats.size = sizeof out.stats;
    OK(bruit_node_stats(node, &out.stats));
    EQ(out.stats.size, sizeof out.stats);
    EQ(sizeof out.stats, 8 + 8 * count);
    CHECK(out.stats.packets_in > 0);

    /* A program built for an older, smaller struct gets that much, one built for a larger one is told what it got. */
    memset(&out, 0xaa, sizeof out);
    out.stats.size = 24;
    OK(bruit_node_stats(node, &out.stats));
    EQ(out.stats.size, 24);
    CHECK(out.words[2] != 0xaaaaaaaaaaaaaaaaULL && out.words[3] == 0xaaaaaaaaaaaaaaaaULL);
    memset(&out, 0xaa, sizeof out);
    out.stats.size = sizeof out;
    OK(bruit_node_stats(node, &out.stats));
    EQ(out.stats.size, sizeof out.stats);
    CHECK(out.words[sizeof out.stats / 8] == 0xaaaaaaaaaaaaaaaaULL);
    out.stats.size = 4;
    EQ(bruit_node_stats(node, &out.stats), BRUIT_E_INVALID);

    OK(bruit_node_free(peer));
    OK(bruit_node_free(node));
}
