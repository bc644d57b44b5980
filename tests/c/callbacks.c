/* Callbacks: what may be called in them, and when their user data is freed. */
#include "test.h"

#include <unistd.h>

/* Calls everything in a callback, and notes what happened. */
typedef struct probe {
    recorder *r;
    bruit_node *node, *peer;
    int manual, ran;
} probe;

static void calls(const bruit_event *event, void *user) {
    probe *p = user;
    char buf[300];
    size_t len;
    uint64_t number, subscription;
    bruit_members *members = NULL;
    const char *address = test_address(p->peer);
    bruit_kv change = {sizeof change, "role", "db", 2};
    bruit_stats stats;
    stats.size = sizeof stats;
    if (event->kind != BRUIT_EVENT_JOIN || p->ran)
        return;
    p->ran = 1;

    EQ(bruit_node_free(p->node), BRUIT_E_DEADLOCK);
    EQ(bruit_node_stop(p->node, 1), BRUIT_E_DEADLOCK);
    EQ(bruit_node_stop(p->node, -1), BRUIT_E_DEADLOCK);
    EQ(bruit_node_dispatch(p->node, 0), p->manual ? BRUIT_E_DEADLOCK : BRUIT_E_STATE);
    EQ(bruit_node_wait(p->node, 1), p->manual ? BRUIT_E_DEADLOCK : BRUIT_E_STATE);
    EQ(bruit_node_state(p->node), BRUIT_NODE_RUNNING); /* none of that has done anything */

    OK(bruit_node_name(p->node, buf, sizeof buf, &len));
    OK(bruit_node_address(p->node, buf, sizeof buf, &len));
    OK(bruit_node_set(p->node, "gossip_fanout", "4"));
    OK(bruit_node_set_meta(p->node, &change, 1));
    EQ(bruit_node_join(p->node, &address, 1, PATIENCE_MS), 1); /* waiting calls too */
    OK(bruit_node_on_event(p->node, BRUIT_EVENT_LEFT, recorder_on_event, p->r, recorder_freed, &subscription));
    OK(bruit_node_unsubscribe(p->node, subscription));
    EQ(recorder_freed_count(p->r), 1);
    OK(bruit_node_members(p->node, &members));
    CHECK(event->view <= bruit_members_view(members));
    bruit_members_free(members);
    CHECK(bruit_node_view(p->node) > 0);
    OK(bruit_node_stats(p->node, &stats));
    OK(bruit_node_stat(p->node, "packets_in", &number));
    EQ(bruit_node_wakeup(p->node), p->manual ? BRUIT_OK : BRUIT_E_STATE);
    OK(bruit_node_set(p->peer, "gossip_fanout", "5")); /* other nodes anyway */
    OK(bruit_node_leave(p->node, PATIENCE_MS));
    EQ(bruit_node_state(p->node), BRUIT_NODE_LEFT);
    int rc = bruit_node_stop(p->node, 0);
    CHECK(rc == BRUIT_E_TIMEOUT || rc == BRUIT_OK);
    recorder_on_event(event, p->r);
}

void test_calls_in_callbacks(void) {
    for (int manual = 0; manual <= 1; manual++) {
        recorder *r = recorder_new();
        probe p = {r, test_node("a", manual ? "manual" : "thread"), test_started("b", "thread"), manual, 0};
        OK(bruit_node_on_event(p.node, BRUIT_EVENT_ALL, calls, &p, NULL, NULL));
        OK(bruit_node_start(p.node));
        test_join(p.peer, p.node);
        if (manual)
            recorder_drive(r, p.node, 0, BRUIT_EVENT_JOIN, "b");
        else
            recorder_wait(r, 0, BRUIT_EVENT_JOIN, "b");
        OK(bruit_node_stop(p.node, -1));
        OK(bruit_node_free(p.node));
        OK(bruit_node_free(p.peer));
        recorder_free(r);
    }
}

static void releases(const bruit_event *event, void *user) {
    probe *p = user;
    if (event->kind == BRUIT_EVENT_JOIN) {
        CHECK(p->ran++ == 0); /* no further callback starts */
        OK(bruit_node_release(p->node));
        EQ(bruit_node_state(p->node), BRUIT_E_HANDLE);
    }
}

static void probe_freed(void *user) {
    recorder_freed(((probe *)user)->r);
}

void test_release_in_callback(void) {
    for (int manual = 0; manual <= 1; manual++) {
        recorder *r = recorder_new();
        probe p = {r, test_node("a", manual ? "manual" : "thread"), test_started("b", "thread"), manual, 0};
        OK(bruit_node_on_event(p.node, BRUIT_EVENT_ALL, releases, &p, probe_freed, NULL));
        OK(bruit_node_start(p.node));
        test_join(p.peer, p.node);
        if (manual)
            while (p.ran == 0 && bruit_node_wait(p.node, PATIENCE_MS) >= 0)
                bruit_node_dispatch(p.node, 0);
        EVENTUALLY(recorder_freed_count(r) == 1);
        EQ(p.ran, 1);
        OK(bruit_node_free(p.peer));
        recorder_free(r);
    }
}

/* free_fn: exactly once, after the last call; never when the registration failed. */
void test_user_data(void) {
    recorder *r = recorder_new();
    uint64_t subscription = 0;
    bruit_node *node = test_node("a", "thread");

    EQ(bruit_node_on_event(node, 0, recorder_on_event, r, recorder_freed, &subscription), BRUIT_E_INVALID);
    EQ(bruit_node_on_event(node, 1u << 31, recorder_on_event, r, recorder_freed, &subscription), BRUIT_E_INVALID);
    EQ(bruit_node_on_event(node, 1, NULL, r, recorder_freed, &subscription), BRUIT_E_INVALID);
    EQ(subscription, 0);
    EQ(recorder_freed_count(r), 0);

    /* By unsubscribing, by freeing a node that never started, by stopping, by releasing. */
    OK(bruit_node_on_event(node, BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, &subscription));
    CHECK(subscription != 0);
    OK(bruit_node_unsubscribe(node, subscription));
    EQ(recorder_freed_count(r), 1);
    EQ(bruit_node_unsubscribe(node, subscription), BRUIT_E_NOT_FOUND);
    OK(bruit_node_on_event(node, BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, NULL));
    OK(bruit_node_free(node));
    EQ(recorder_freed_count(r), 2);

    node = test_started("b", "thread");
    OK(bruit_node_on_event(node, BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, NULL));
    OK(bruit_node_stop(node, -1));
    EQ(recorder_freed_count(r), 3);
    EQ(bruit_node_on_event(node, BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, NULL), BRUIT_E_STATE);
    EQ(recorder_freed_count(r), 3);
    OK(bruit_node_free(node));
    EQ(recorder_freed_count(r), 3);

    for (int manual = 0; manual <= 1; manual++) {
        node = test_started("c", manual ? "manual" : "thread");
        OK(bruit_node_on_event(node, BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, NULL));
        OK(bruit_node_release(node));
        EVENTUALLY(recorder_freed_count(r) == 4 + manual);
    }
    recorder_free(r);
}

typedef struct once {
    recorder *r;
    bruit_node *node;
    uint64_t subscription;
    int ran;
} once;

static void unsubscribes(const bruit_event *event, void *user) {
    once *o = user;
    CHECK(o->ran++ == 0);
    OK(bruit_node_unsubscribe(o->node, o->subscription));
    EQ(recorder_freed_count(o->r), 0); /* not while it runs */
    recorder_on_event(event, o->r);
}

static void once_freed(void *user) {
    recorder_freed(((once *)user)->r);
}

typedef struct slow {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int running, may_end, ended;
} slow;

static void takes_long(const bruit_event *event, void *user) {
    slow *s = user;
    (void)event;
    pthread_mutex_lock(&s->lock);
    s->running = 1;
    pthread_cond_broadcast(&s->change);
    while (!s->may_end)
        pthread_cond_wait(&s->change, &s->lock);
    s->ended = 1;
    pthread_mutex_unlock(&s->lock);
}

static void *lets_it_end(void *user) {
    slow *s = user;
    EVENTUALLY(test_asleep(getpid())); /* the main thread, in the unsubscription */
    pthread_mutex_lock(&s->lock);
    s->may_end = 1;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void test_subscriptions(void) {
    recorder *all = recorder_new(), *left = recorder_new();
    once o = {recorder_new(), test_node("a", "thread"), 0, 0};
    slow s = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
    uint64_t slow_subscription;
    bruit_node *b = test_started("b", "thread"), *c = test_started("c", "thread");
    OK(bruit_node_on_event(o.node, BRUIT_EVENT_JOIN, unsubscribes, &o, once_freed, &o.subscription));
    OK(bruit_node_on_event(o.node, BRUIT_EVENT_ALL, recorder_on_event, all, NULL, NULL));
    OK(bruit_node_on_event(o.node, BRUIT_EVENT_LEFT, recorder_on_event, left, NULL, NULL));
    OK(bruit_node_start(o.node));

    /* One that ends itself in its first call hears no more, while others do. */
    test_join(b, o.node);
    test_join(c, o.node);
    recorder_wait(all, 0, BRUIT_EVENT_JOIN, "b");
    recorder_wait(all, 0, BRUIT_EVENT_JOIN, "c");
    EQ(o.ran, 1);
    EVENTUALLY(recorder_freed_count(o.r) == 1);

    /* From outside, a call that is under way is waited for. */
    OK(bruit_node_on_event(o.node, BRUIT_EVENT_LEFT, takes_long, &s, NULL, &slow_subscription));
    OK(bruit_node_leave(b, PATIENCE_MS));
    pthread_mutex_lock(&s.lock);
    while (!s.running)
        pthread_cond_wait(&s.change, &s.lock);
    pthread_mutex_unlock(&s.lock);
    pthread_t ender;
    CHECK(pthread_create(&ender, NULL, lets_it_end, &s) == 0);
    OK(bruit_node_unsubscribe(o.node, slow_subscription));
    EQ(s.ended, 1);
    pthread_join(ender, NULL);

    /* A mask lets through what it names. */
    recorder_wait(left, 0, BRUIT_EVENT_LEFT, "b");
    EQ(left->count, 1);

    OK(bruit_node_free(o.node));
    OK(bruit_node_free(b));
    OK(bruit_node_free(c));
    EQ(recorder_freed_count(o.r), 1);
    recorder_free(o.r);
    recorder_free(all);
    recorder_free(left);
}

static void *dispatches_too(void *node) {
    const bruit_event *none = NULL;
    EQ(bruit_node_dispatch(node, 0), BRUIT_E_BUSY);
    EQ(bruit_node_next_event(node, &none), BRUIT_E_BUSY);
    EQ(bruit_node_dispatch(node, 0), BRUIT_E_BUSY); /* what was refused leaves no trace */
    CHECK(none == NULL);
    return NULL;
}

static void waits_for_another(const bruit_event *event, void *user) {
    pthread_t other;
    const bruit_event *next = NULL;
    (void)event;
    CHECK(pthread_create(&other, NULL, dispatches_too, *(bruit_node **)user) == 0);
    pthread_join(other, NULL);
    /* The thread that dispatches may look for more. */
    EQ(bruit_node_dispatch(*(bruit_node **)user, 0), BRUIT_E_DEADLOCK);
    CHECK(bruit_node_next_event(*(bruit_node **)user, &next) >= 0);
    bruit_event_free(next);
    *(bruit_node **)user = NULL;
}

void test_one_dispatcher(void) {
    bruit_node *node = test_node("a", "manual"), *peer = test_started("b", "thread"), *once = node;
    OK(bruit_node_on_event(node, BRUIT_EVENT_JOIN, waits_for_another, &once, NULL, NULL));
    OK(bruit_node_start(node));
    test_join(peer, node);
    while (once != NULL) {
        EQ(bruit_node_wait(node, PATIENCE_MS), 1);
        CHECK(bruit_node_dispatch(node, 0) >= 0);
    }
    const bruit_event *next = NULL;
    CHECK(bruit_node_next_event(node, &next) >= 0); /* nobody dispatches any more */
    bruit_event_free(next);
    OK(bruit_node_free(peer));
    OK(bruit_node_free(node));
}

typedef struct hearer {
    pthread_mutex_t lock;
    int lines, too_detailed, freed;
} hearer;

static void hears(int level, const char *target, const char *text, void *user) {
    hearer *h = user;
    pthread_mutex_lock(&h->lock);
    h->lines++;
    h->too_detailed += level > BRUIT_LEVEL_DEBUG;
    CHECK(target != NULL && text[0] != '\0');
    pthread_mutex_unlock(&h->lock);
}

static void hearer_freed(void *user) {
    hearer *h = user;
    pthread_mutex_lock(&h->lock);
    h->freed++;
    pthread_mutex_unlock(&h->lock);
}

/* A free_fn may call bruit, the very configuration included. */
static void sets_name(void *config) {
    OK(bruit_config_set(config, "name", "freed"));
}

static int hearer_lines(hearer *h) {
    pthread_mutex_lock(&h->lock);
    int lines = h->lines;
    pthread_mutex_unlock(&h->lock);
    return lines;
}

void test_logging(void) {
    hearer one = {PTHREAD_MUTEX_INITIALIZER, 0, 0, 0}, two = {PTHREAD_MUTEX_INITIALIZER, 0, 0, 0};
    bruit_config *config = test_config("talks", "thread"), *copy = NULL;
    bruit_node *node = NULL, *peer = test_started("peer", "thread");

    OK(bruit_config_on_log(config, BRUIT_LEVEL_DEBUG, hears, &one, hearer_freed));
    OK(bruit_config_on_log(config, BRUIT_LEVEL_DEBUG, hears, &two, hearer_freed)); /* takes its place */
    EQ(one.freed, 1);

    /* Without a callback the data is freed at once; where the call fails it is not. No lock is held, either way. */
    char name[16];
    bruit_config *other = test_config("other", "thread");
    EQ(bruit_config_on_log(other, 9, NULL, other, sets_name), BRUIT_E_INVALID);
    OK(bruit_config_get(other, "name", name, sizeof name, NULL));
    STREQ(name, "other");
    OK(bruit_config_on_log(other, BRUIT_LEVEL_DEBUG, NULL, other, sets_name));
    OK(bruit_config_get(other, "name", name, sizeof name, NULL));
    STREQ(name, "freed");
    OK(bruit_config_set(other, "name", "other"));
    OK(bruit_config_on_log(other, BRUIT_LEVEL_DEBUG, hears, other, sets_name));
    OK(bruit_config_on_log(other, BRUIT_LEVEL_DEBUG, NULL, NULL, NULL));
    OK(bruit_config_get(other, "name", name, sizeof name, NULL));
    STREQ(name, "freed");
    OK(bruit_config_free(other));

    OK(bruit_config_dup(config, &copy));
    OK(bruit_config_free(config));
    OK(bruit_node_new(copy, &node));
    OK(bruit_config_free(copy));
    EQ(two.freed, 0); /* the node has it */
    OK(bruit_node_start(node));
    test_join(node, peer);
    EVENTUALLY(hearer_lines(&two) > 0);
    OK(bruit_node_free(peer));
    OK(bruit_node_free(node));
    EQ(two.freed, 1);
    EQ(two.too_detailed, 0);
    EQ(one.lines, 0);
}

void test_shared_runtime(void) {
    enum { MOST = 20 };
    const int count = test_few ? 5 : MOST;
    bruit_runtime *runtime = NULL;
    bruit_node *nodes[MOST];
    recorder *r = recorder_new();
    int before = test_threads();
    OK(bruit_runtime_new(&runtime));
    for (int n = 0; n < count; n++) {
        char name[16];
        snprintf(name, sizeof name, "n%02d", n);
        bruit_config *config = test_config(name, "thread");
        OK(bruit_config_set_runtime(config, runtime));
        OK(bruit_node_new(config, &nodes[n]));
        OK(bruit_config_free(config));
        OK(bruit_node_on_event(nodes[n], BRUIT_EVENT_JOIN, recorder_on_event, r, recorder_freed, NULL));
        OK(bruit_node_start(nodes[n]));
    }
    for (int n = 1; n < count; n++)
        test_join(nodes[n], nodes[0]);
    CHECK(test_threads() <= before + 3); /* sockets and timers, callbacks, and a resolver if need be */
    recorder_wait(r, 0, BRUIT_EVENT_JOIN, count == MOST ? "n19" : "n04");
    OK(bruit_runtime_free(runtime));
    for (int n = 0; n < count; n++)
        OK(bruit_node_free(nodes[n]));
    EQ(recorder_freed_count(r), count);
    EVENTUALLY(test_threads() == before);
    recorder_free(r);
}
