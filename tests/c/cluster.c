/* Small clusters: what one node sees of another, in each way of hearing it. */
#include "test.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* a hears of b's whole life: JOIN, UPDATE, LEFT. */
static void hears(bruit_node *a, recorder *r, size_t (*seen)(recorder *, bruit_node *, size_t, uint32_t, const char *)) {
    bruit_members *members = NULL;
    const bruit_kv role = {sizeof role, "role", "db", 2};
    bruit_node *b = test_started("b", "thread");

    test_join(b, a);
    size_t at = seen(r, a, 0, BRUIT_EVENT_JOIN, "b");
    STREQ(r->seen[at].address, test_address(b));

    /* The snapshot has what the event told. */
    OK(bruit_node_members(a, &members));
    CHECK(r->seen[at].view <= bruit_members_view(members));
    EQ(bruit_members_len(members), 2);
    CHECK(bruit_members_find(members, "b")->state <= BRUIT_MEMBER_SUSPECT); /* a slow machine may doubt it */
    bruit_members_free(members);

    OK(bruit_node_set_meta(b, &role, 1));
    at = seen(r, a, at + 1, BRUIT_EVENT_UPDATE, "b");
    STREQ(r->seen[at].meta, "db");
    CHECK(r->seen[at].changed & BRUIT_CHANGED_META);

    OK(bruit_node_leave(b, PATIENCE_MS));
    at = seen(r, a, at + 1, BRUIT_EVENT_LEFT, "b");
    CHECK(r->seen[at].changed & BRUIT_CHANGED_STATE);
    OK(bruit_node_members(a, &members));
    EQ(bruit_members_find(members, "b")->state, BRUIT_MEMBER_LEFT);
    bruit_members_free(members);
    OK(bruit_node_free(b));
    CHECK(!recorder_has(r, 0, BRUIT_EVENT_JOIN, "a"));      /* nothing about itself */
    CHECK(!recorder_has(r, at + 1, BRUIT_EVENT_DEAD, "b")); /* who has left is not found dead */
}

static size_t by_thread(recorder *r, bruit_node *node, size_t from, uint32_t kind, const char *name) {
    (void)node;
    return recorder_wait(r, from, kind, name);
}

static size_t by_dispatch(recorder *r, bruit_node *node, size_t from, uint32_t kind, const char *name) {
    return recorder_drive(r, node, from, kind, name);
}

/* Takes events itself and hands them to the recorder. */
static size_t by_pulling(recorder *r, bruit_node *node, size_t from, uint32_t kind, const char *name) {
    long until = test_now_ms() + PATIENCE_MS;
    for (;;) {
        const bruit_event *event = NULL;
        for (size_t n = from; n < r->count; n++)
            if (r->seen[n].kind == kind && strcmp(r->seen[n].name, name) == 0)
                return n;
        if (test_now_ms() > until)
            FAIL("never pulled: %s %s", bruit_event_name(kind), name);
        int rc = bruit_node_next_event(node, &event);
        EQ(rc, event != NULL);
        if (rc == 1) {
            recorder_on_event(event, r);
            bruit_event_free(event);
        } else {
            CHECK(bruit_node_wait(node, 1000) >= 0);
        }
    }
}

void test_cluster_threads(void) {
    bruit_node *a = test_node("a", "thread");
    recorder *r = recorder_new();
    OK(bruit_node_on_event(a, BRUIT_EVENT_ALL, recorder_on_event, r, recorder_freed, NULL));
    OK(bruit_node_start(a));
    hears(a, r, by_thread);
    OK(bruit_node_free(a));
    EQ(recorder_freed_count(r), 1);
    recorder_free(r);
}

void test_cluster_manual(void) {
    bruit_node *a = test_node("a", "manual");
    recorder *r = recorder_new();
    OK(bruit_node_on_event(a, BRUIT_EVENT_ALL, recorder_on_event, r, recorder_freed, NULL));
    OK(bruit_node_start(a));
    hears(a, r, by_dispatch);
    OK(bruit_node_free(a));
    EQ(recorder_freed_count(r), 1);
    recorder_free(r);
}

void test_cluster_pull(void) {
    bruit_node *a = test_started("a", "manual");
    recorder *r = recorder_new();
    hears(a, r, by_pulling);

    /* An event may outlive its node. */
    const bruit_event *event = NULL;
    bruit_node *c = test_started("c", "thread");
    test_join(c, a);
    do {
        if (event != NULL)
            bruit_event_free(event);
        while (bruit_node_next_event(a, &event) == 0)
            EQ(bruit_node_wait(a, PATIENCE_MS), 1);
    } while (event->kind != BRUIT_EVENT_JOIN);
    OK(bruit_node_free(c));
    OK(bruit_node_free(a));
    STREQ(event->member->name, "c");
    EQ(event->size, sizeof *event);
    EQ(event->member->size, sizeof *event->member);
    bruit_event_free(event);
    recorder_free(r);
}

static size_t meta_len(bruit_node *node, const char *name) {
    bruit_members *members = NULL;
    OK(bruit_node_members(node, &members));
    size_t len = bruit_member_meta_len(bruit_members_find(members, name));
    bruit_members_free(members);
    return len;
}

void test_metadata(void) {
    const void *value = NULL;
    const char *key = NULL;
    size_t len = 99;
    bruit_members *members = NULL;
    bruit_config *config = test_config("meta", "thread");
    bruit_node *node = NULL, *peer = test_node("peer", "thread");
    recorder *r = recorder_new();

    OK(bruit_config_set_meta(config, "role", "db", 2));
    OK(bruit_config_set_meta(config, "zone", "eu", 2));
    OK(bruit_config_set_meta(config, "gone", "x", 1));
    OK(bruit_config_set_meta(config, "gone", NULL, 0));
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    OK(bruit_node_start(node));
    OK(bruit_node_on_event(peer, BRUIT_EVENT_ALL, recorder_on_event, r, NULL, NULL));
    OK(bruit_node_start(peer));
    test_join(peer, node);
    recorder_wait(r, 0, BRUIT_EVENT_JOIN, "meta");

    /* Several changes of one call come as one, however large; bytes stay bytes. */
    char *large = malloc(5000);
    memset(large, 'x', 5000);
    const bruit_kv changes[] = {
        {sizeof(bruit_kv), "zone", NULL, 0},
        {sizeof(bruit_kv), "role", "web", 3},
        {sizeof(bruit_kv), "bytes", "\0\x80\xff", 3},
        {sizeof(bruit_kv), "large", large, 5000},
        {sizeof(bruit_kv), "empty", "", 0},
    };
    OK(bruit_node_set_meta(node, changes, 5));
    recorder_wait(r, 0, BRUIT_EVENT_UPDATE, "meta");
    EVENTUALLY(meta_len(peer, "meta") == 4); /* the large value is fetched by stream and may come in a second update */
    OK(bruit_node_members(peer, &members));
    const bruit_member *member = bruit_members_find(members, "meta");
    OK(bruit_member_meta(member, "role", &value, &len));
    EQ(len, 3);
    STREQ(value, "web");
    OK(bruit_member_meta(member, "bytes", &value, &len));
    EQ(len, 3);
    CHECK(memcmp(value, "\0\x80\xff", 4) == 0); /* the NUL after it too */
    OK(bruit_member_meta(member, "large", &value, &len));
    CHECK(len == 5000 && memcmp(value, large, 5000) == 0);
    OK(bruit_member_meta(member, "empty", &value, &len));
    CHECK(len == 0 && *(const char *)value == '\0');
    len = 99;
    EQ(bruit_member_meta(member, "zone", &value, &len), BRUIT_E_NOT_FOUND);
    EQ(len, 99);
    static const char *const keys[] = {"bytes", "empty", "large", "role"};
    for (size_t n = 0; n < 4; n++) {
        OK(bruit_member_meta_at(member, n, &key, &value, &len));
        STREQ(key, keys[n]);
    }
    EQ(bruit_member_meta_at(member, 4, &key, &value, &len), BRUIT_E_NOT_FOUND);
    bruit_members_free(members);

    /* Refused as a whole: too large, a bad key, a struct of a size that cannot be. */
    char *huge = calloc(1, 1 << 20);
    bruit_kv bad[] = {{sizeof(bruit_kv), "role", "x", 1}, {sizeof(bruit_kv), "huge", huge, 1 << 20}};
    EQ(bruit_node_set_meta(node, bad, 2), BRUIT_E_TOO_BIG);
    bad[1].key = "a=b";
    bad[1].len = 1;
    EQ(bruit_node_set_meta(node, bad, 2), BRUIT_E_INVALID);
    bad[0].size = bad[1].size = 8;
    EQ(bruit_node_set_meta(node, bad, 2), BRUIT_E_INVALID);
    OK(bruit_node_members(node, &members));
    OK(bruit_member_meta(bruit_members_local(members), "role", &value, NULL));
    STREQ(value, "web");
    bruit_members_free(members);

    /* An array of a later, larger bruit_kv; and one that leaves size 0. */
    struct {
        bruit_kv kv;
        void *more;
    } later[2] = {{{sizeof later[0], "one", "1", 1}, NULL}, {{sizeof later[0], "two", "2", 1}, NULL}};
    OK(bruit_node_set_meta(node, &later[0].kv, 2));
    bruit_kv plain[2] = {{0, "one", NULL, 0}, {0, "two", "3", 1}};
    OK(bruit_node_set_meta(node, plain, 2));
    OK(bruit_node_members(node, &members));
    EQ(bruit_member_meta(bruit_members_local(members), "one", NULL, NULL), BRUIT_E_NOT_FOUND);
    OK(bruit_member_meta(bruit_members_local(members), "two", &value, NULL));
    STREQ(value, "3");
    bruit_members_free(members);

    free(large);
    free(huge);
    OK(bruit_node_free(peer));
    OK(bruit_node_free(node));
    recorder_free(r);
}

void test_snapshots(void) {
    enum { MOST = 40 }; /* more than one run of rendered members */
    const int count = test_few ? 9 : MOST, dbs = (count + 3) / 4;
    bruit_node *nodes[MOST];
    bruit_runtime *runtime = NULL;
    bruit_members *members = NULL;
    OK(bruit_runtime_new(&runtime));
    for (int n = 0; n < count; n++) {
        char name[16];
        snprintf(name, sizeof name, "n%02d", n);
        bruit_config *config = test_config(name, "manual");
        OK(bruit_config_set_runtime(config, runtime));
        OK(bruit_config_set_meta(config, "role", n % 4 ? "web" : "db", n % 4 ? 3 : 2));
        if (n == 7)
            OK(bruit_config_set_meta(config, "canary", "", 0));
        OK(bruit_config_set(config, "app_version", "7"));
        OK(bruit_node_new(config, &nodes[n]));
        OK(bruit_config_free(config));
        OK(bruit_node_start(nodes[n]));
        if (n > 0)
            test_join(nodes[n], nodes[0]);
    }
    OK(bruit_runtime_free(runtime)); /* its nodes keep it */
    do {
        bruit_members_free(members);
        EQ(bruit_node_wait(nodes[3], PATIENCE_MS), 1);
        CHECK(bruit_node_dispatch(nodes[3], 0) > 0);
        OK(bruit_node_members(nodes[3], &members));
    } while (bruit_members_len(members) < (size_t)count);

    EQ(bruit_members_len(members), count);
    CHECK(bruit_members_view(members) > 0 && bruit_members_view(members) <= bruit_node_view(nodes[3]));
    for (int n = 0; n < count; n++) {
        char name[16];
        snprintf(name, sizeof name, "n%02d", n);
        const bruit_member *member = bruit_members_at(members, n);
        STREQ(member->name, name); /* sorted */
        CHECK(bruit_members_find(members, name) == member);
        EQ(member->flags & BRUIT_MEMBER_LOCAL, n == 3 ? BRUIT_MEMBER_LOCAL : 0);
        STREQ(member->address, test_address(nodes[n]));
        STREQ(member->ip, "127.0.0.1");
        EQ(member->port, atoi(strchr(member->address, ':') + 1));
        EQ(member->app_version, 7);
        CHECK(member->epoch > 0 && member->protocol > 0);
        CHECK(member->state_age_ms < 3 * PATIENCE_MS);
    }
    CHECK(bruit_members_local(members) == bruit_members_find(members, "n03"));
    CHECK(bruit_members_at(members, count) == NULL);
    CHECK(bruit_members_find(members, "nobody") == NULL);

    const bruit_member *found[MOST];
    EQ(bruit_members_with(members, "role", found, MOST), count);
    EQ(bruit_members_with(members, "role=db", found, MOST), dbs);
    STREQ(found[1]->name, "n04");
    found[2] = NULL;
    EQ(bruit_members_with(members, "role=db", found, 2), dbs); /* no more than there is room for */
    CHECK(found[2] == NULL);
    EQ(bruit_members_with(members, "canary", found, MOST), 1);
    EQ(bruit_members_with(members, "role=none", found, MOST), 0);

    for (int n = 0; n < count; n++)
        OK(bruit_node_stop(nodes[n], 0) == BRUIT_E_TIMEOUT ? BRUIT_OK : bruit_node_stop(nodes[n], -1));
    for (int n = 0; n < count; n++)
        OK(bruit_node_free(nodes[n]));
    STREQ(bruit_members_find(members, "n08")->name, "n08");
    bruit_members_free(members);
}

void test_deaths(void) {
    bruit_members *members = NULL;
    bruit_node *a = test_node("a", "thread"), *b = test_started("b", "thread");
    recorder *r = recorder_new();
    OK(bruit_node_on_event(a, BRUIT_EVENT_ALL, recorder_on_event, r, NULL, NULL));
    OK(bruit_node_start(a));
    test_join(a, b);
    recorder_wait(r, 0, BRUIT_EVENT_JOIN, "b");

    size_t at = recorder_count(r);
    OK(bruit_node_stop(b, -1)); /* without a word */
    at = recorder_wait(r, at, BRUIT_EVENT_DEAD, "b");
    CHECK(recorder_has(r, 0, BRUIT_EVENT_SUSPECT, "b"));
    CHECK(r->seen[at].changed & BRUIT_CHANGED_STATE);
    OK(bruit_node_members(a, &members));
    EQ(bruit_members_find(members, "b")->state, BRUIT_MEMBER_DEAD);
    EQ(bruit_members_with(members, "role", NULL, 0), 0);
    bruit_members_free(members);
    OK(bruit_node_free(b));

    /* A new run of that name is welcome, and tells itself apart. */
    b = test_started("b", "thread");
    test_join(b, a);
    at = recorder_wait(r, at, BRUIT_EVENT_ALIVE, "b");
    CHECK(r->seen[at].changed & BRUIT_CHANGED_EPOCH);

    /* Nobody answers there. */
    const char *nobody = "127.0.0.1:1";
    CHECK(bruit_node_join(a, &nobody, 1, 1) < 0);
    at = recorder_wait(r, at + 1, BRUIT_EVENT_JOINED, NULL);
    EQ(r->seen[at].count, 0);

    OK(bruit_node_free(b));
    OK(bruit_node_free(a));
    recorder_free(r);
}

static const unsigned char first_key[BRUIT_KEY_LEN] = {1, 2, 3}, second_key[BRUIT_KEY_LEN] = {4, 5, 6};

static bruit_node *keyed(const char *name, const unsigned char *seals, const unsigned char *opens) {
    bruit_node *node = NULL;
    bruit_config *config = test_config(name, "manual");
    OK(bruit_config_add_key(config, seals, BRUIT_KEY_LEN));
    if (opens != NULL)
        OK(bruit_config_add_key(config, opens, BRUIT_KEY_LEN));
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    OK(bruit_node_start(node));
    return node;
}

static int sees(bruit_node *node, const char *name) {
    bruit_members *members = NULL;
    OK(bruit_node_members(node, &members));
    int found = bruit_members_find(members, name) != NULL;
    bruit_members_free(members);
    return found;
}

/* Who has the key is in, sealing with another one that is known or not; who has not gets no answer. */
void test_keys(void) {
    uint64_t rejected = 0;
    bruit_node *a = keyed("a", first_key, second_key), *b = keyed("b", first_key, second_key);
    bruit_node *rotated = keyed("rotated", second_key, first_key);
    bruit_node *wrong = keyed("wrong", (const unsigned char *)"another key of thirty-two bytes!", NULL);
    bruit_node *none = test_started("none", "manual");
    test_join(b, a);
    test_join(rotated, a);
    EVENTUALLY(sees(b, "rotated") && sees(rotated, "b"));

    const char *address = test_address(a);
    EQ(bruit_node_join(wrong, &address, 1, -1), BRUIT_E_TIMEOUT); /* until the option join_timeout */
    OK(bruit_node_stat(a, "rejected_key", &rejected));
    CHECK(rejected > 0);
    EQ(bruit_node_join(none, &address, 1, -1), BRUIT_E_TIMEOUT);
    OK(bruit_node_stat(a, "rejected_mode", &rejected));
    CHECK(rejected > 0);
    CHECK(!sees(a, "wrong") && !sees(wrong, "a") && !sees(a, "none") && !sees(none, "a"));

    OK(bruit_node_free(none));
    OK(bruit_node_free(wrong));
    OK(bruit_node_free(rotated));
    OK(bruit_node_free(b));
    OK(bruit_node_free(a));
}

/* A name is one node's at a time: the second is refused, and told why. */
void test_refused(void) {
    bruit_node *first = test_started("twin", "manual"), *second = test_started("twin", "manual");
    const char *address = test_address(first);
    EQ(bruit_node_join(second, &address, 1, PATIENCE_MS), BRUIT_E_REFUSED);
    CHECK(strstr(bruit_last_error(), "twin") != NULL);
    EQ(bruit_node_state(second), BRUIT_NODE_RUNNING); /* it may try elsewhere */

    const bruit_event *event = NULL;
    do {
        if (event != NULL)
            bruit_event_free(event);
        while (bruit_node_next_event(second, &event) == 0)
            EQ(bruit_node_wait(second, PATIENCE_MS), 1);
    } while (event->kind != BRUIT_EVENT_JOINED);
    EQ(event->status, BRUIT_E_REFUSED);
    EQ(event->count, 0);
    EQ(event->id, 1); /* its first join */
    CHECK(strstr(event->text, "twin") != NULL);
    bruit_event_free(event);
    OK(bruit_node_free(second));
    OK(bruit_node_free(first));
}

/* Nobody hears the good-bye: the only peer is a process that does not run. */
void test_unheard(void) {
    int to_parent[2], status = 0;
    char address[64] = "";
    const char *peer = address;
    CHECK(pipe(to_parent) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(300);
        const char *own = test_address(test_started("peer", "thread"));
        CHECK(write(to_parent[1], own, strlen(own)) > 0);
        for (;;)
            pause();
    }
    CHECK(read(to_parent[0], address, sizeof address - 1) > 0);

    bruit_node *node = NULL;
    bruit_config *config = test_config("leaver", "manual");
    OK(bruit_config_set(config, "profile", "wan")); /* too patient to find it dead meanwhile */
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    OK(bruit_node_start(node));
    EQ(bruit_node_join(node, &peer, 1, PATIENCE_MS), 1);
    CHECK(kill(child, SIGSTOP) == 0);
    EQ(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
    EQ(bruit_node_leave(node, 50), BRUIT_E_TIMEOUT);
    EVENTUALLY(bruit_node_state(node) == BRUIT_NODE_LEFT); /* all the same */
    OK(bruit_node_leave(node, 50));
    OK(bruit_node_free(node));
    CHECK(kill(child, SIGKILL) == 0);
    EQ(waitpid(child, &status, 0), child);
}

/* Who does not look loses what is no news of members, the oldest first, and is told how much. */
void test_overflow(void) {
    enum { CAPACITY = 16, JOINS = 40 };
    uint64_t dropped = 0, told = 0, last_id = 0;
    size_t joined = 0, joins = 0;
    bruit_node *node = NULL, *peer = test_started("peer", "thread");
    bruit_config *config = test_config("behind", "manual");
    OK(bruit_config_set(config, "inbox_capacity", "16"));
    OK(bruit_node_new(config, &node));
    OK(bruit_config_free(config));
    OK(bruit_node_start(node));
    for (int n = 0; n < JOINS; n++)
        test_join(node, peer);

    const bruit_event *event = NULL;
    while (bruit_node_next_event(node, &event) == 1) {
        if (event->kind == BRUIT_EVENT_OVERFLOW) {
            CHECK(joined == 0); /* before what came after the gap */
            told += event->count;
        } else if (event->kind == BRUIT_EVENT_JOINED) {
            CHECK(event->id > last_id);
            last_id = event->id;
            joined++;
        } else if (event->kind == BRUIT_EVENT_JOIN) {
            STREQ(event->member->name, "peer");
            joins++;
        }
        bruit_event_free(event);
    }
    OK(bruit_node_stat(node, "events_dropped", &dropped));
    EQ(told, dropped);
    CHECK(told >= JOINS - CAPACITY);
    CHECK(joined > 0 && joined <= CAPACITY);
    EQ(last_id, JOINS);
    EQ(joins, 1);
    OK(bruit_node_free(node));
    OK(bruit_node_free(peer));
}
