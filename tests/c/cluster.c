/* Small clusters: what one node sees of another, in each way of hearing it. */
#include "test.h"

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
    EQ(bruit_members_find(members, "b")->state, BRUIT_MEMBER_ALIVE);
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
    CHECK(!recorder_has(r, BRUIT_EVENT_JOIN, "a")); /* nothing about itself */
    CHECK(!recorder_has(r, BRUIT_EVENT_DEAD, NULL));
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
    size_t at;
    do {
        at = recorder_wait(r, 0, BRUIT_EVENT_UPDATE, "meta");
        OK(bruit_node_members(peer, &members));
        if (bruit_member_meta_len(bruit_members_find(members, "meta")) != 4) {
            bruit_members_free(members);
            members = NULL;
            test_pause(); /* the large value is fetched by stream and may come in a second update */
        }
    } while (members == NULL);
    (void)at;
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
    enum { COUNT = 40 }; /* more than one run of rendered members */
    bruit_node *nodes[COUNT];
    bruit_runtime *runtime = NULL;
    bruit_members *members = NULL;
    OK(bruit_runtime_new(&runtime));
    for (int n = 0; n < COUNT; n++) {
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
    } while (bruit_members_len(members) < COUNT);

    EQ(bruit_members_len(members), COUNT);
    CHECK(bruit_members_view(members) > 0 && bruit_members_view(members) <= bruit_node_view(nodes[3]));
    for (size_t n = 0; n < COUNT; n++) {
        char name[16];
        snprintf(name, sizeof name, "n%02d", (int)n);
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
    CHECK(bruit_members_at(members, COUNT) == NULL);
    CHECK(bruit_members_find(members, "nobody") == NULL);

    const bruit_member *found[COUNT];
    EQ(bruit_members_with(members, "role", found, COUNT), COUNT);
    EQ(bruit_members_with(members, "role=db", found, COUNT), COUNT / 4);
    STREQ(found[1]->name, "n04");
    found[2] = NULL;
    EQ(bruit_members_with(members, "role=db", found, 2), COUNT / 4); /* no more than there is room for */
    CHECK(found[2] == NULL);
    EQ(bruit_members_with(members, "canary", found, COUNT), 1);
    EQ(bruit_members_with(members, "role=none", found, COUNT), 0);

    for (int n = 0; n < COUNT; n++)
        OK(bruit_node_stop(nodes[n], 0) == BRUIT_E_TIMEOUT ? BRUIT_OK : bruit_node_stop(nodes[n], -1));
    for (int n = 0; n < COUNT; n++)
        OK(bruit_node_free(nodes[n]));
    STREQ(bruit_members_find(members, "n39")->name, "n39");
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

    OK(bruit_node_stop(b, -1)); /* without a word */
    recorder_wait(r, 0, BRUIT_EVENT_SUSPECT, "b");
    size_t at = recorder_wait(r, 0, BRUIT_EVENT_DEAD, "b");
    CHECK(r->seen[at].changed & BRUIT_CHANGED_STATE);
    OK(bruit_node_members(a, &members));
    EQ(bruit_members_find(members, "b")->state, BRUIT_MEMBER_DEAD);
    EQ(bruit_members_with(members, "role", NULL, 0), 0);
    bruit_members_free(members);
    OK(bruit_node_free(b));

    /* A new run of that name is welcome, and tells itself apart. */
    b = test_started("b", "thread");
    test_join(b, a);
    at = recorder_wait(r, 0, BRUIT_EVENT_ALIVE, "b");
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
