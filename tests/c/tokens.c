/* Handles that are no good are error codes, never crashes. */
#include "test.h"

static void on_event(const bruit_event *event, void *user) {
    (void)event;
    (void)user;
}

static void on_log(int level, const char *target, const char *text, void *user) {
    (void)level;
    (void)target;
    (void)text;
    (void)user;
}

static void on_free(void *freed) {
    ++*(int *)freed;
}

/* Every function that takes a node refuses this one. */
static void refused(bruit_node *node) {
    char buf[300];
    size_t len;
    uint64_t number;
    bruit_members *members = NULL;
    const bruit_event *event = NULL;
    const char *address = "127.0.0.1:1";
    bruit_kv change = {sizeof change, "role", "db", 2};
    bruit_stats stats;
    stats.size = sizeof stats;

    EQ(bruit_node_start(node), BRUIT_E_HANDLE);
    EQ(bruit_node_join(node, &address, 1, 0), BRUIT_E_HANDLE);
    EQ(bruit_node_leave(node, 0), BRUIT_E_HANDLE);
    EQ(bruit_node_stop(node, 0), BRUIT_E_HANDLE);
    EQ(bruit_node_free(node), BRUIT_E_HANDLE);
    EQ(bruit_node_release(node), BRUIT_E_HANDLE);
    EQ(bruit_node_state(node), BRUIT_E_HANDLE);
    EQ(bruit_node_name(node, buf, sizeof buf, &len), BRUIT_E_HANDLE);
    EQ(bruit_node_address(node, buf, sizeof buf, &len), BRUIT_E_HANDLE);
    EQ(bruit_node_set(node, "gossip_fanout", "3"), BRUIT_E_HANDLE);
    EQ(bruit_node_set_meta(node, &change, 1), BRUIT_E_HANDLE);
    EQ(bruit_node_on_event(node, BRUIT_EVENT_ALL, on_event, NULL, NULL, NULL), BRUIT_E_HANDLE);
    EQ(bruit_node_unsubscribe(node, 1), BRUIT_E_HANDLE);
    EQ(bruit_node_event_fd(node), BRUIT_E_HANDLE);
    EQ(bruit_node_dispatch(node, 0), BRUIT_E_HANDLE);
    EQ(bruit_node_wait(node, 0), BRUIT_E_HANDLE);
    EQ(bruit_node_wakeup(node), BRUIT_E_HANDLE);
    EQ(bruit_node_next_event(node, &event), BRUIT_E_HANDLE);
    EQ(bruit_node_members(node, &members), BRUIT_E_HANDLE);
    EQ(bruit_node_view(node), 0);
    EQ(bruit_node_stats(node, &stats), BRUIT_E_HANDLE);
    EQ(bruit_node_stat(node, "acks", &number), BRUIT_E_HANDLE);
    CHECK(members == NULL && event == NULL);
}

/* Every function that takes a configuration refuses this one. */
static void refused_config(bruit_config *config) {
    char buf[64] = "untouched", key[BRUIT_KEY_LEN] = "";
    size_t len = 99;
    int freed = 0;
    bruit_config *copy = NULL;
    bruit_node *node = NULL;

    EQ(bruit_config_dup(config, &copy), BRUIT_E_HANDLE);
    EQ(bruit_config_set(config, "name", "a"), BRUIT_E_HANDLE);
    EQ(bruit_config_load(config, "/dev/null"), BRUIT_E_HANDLE);
    EQ(bruit_config_get(config, "name", buf, sizeof buf, &len), BRUIT_E_HANDLE);
    EQ(bruit_config_add_seed(config, "127.0.0.1:1"), BRUIT_E_HANDLE);
    EQ(bruit_config_add_key(config, key, sizeof key), BRUIT_E_HANDLE);
    EQ(bruit_config_set_meta(config, "role", "db", 2), BRUIT_E_HANDLE);
    EQ(bruit_config_adopt_sockets(config, -1, -1), BRUIT_E_HANDLE);
    EQ(bruit_config_set_runtime(config, NULL), BRUIT_E_HANDLE);
    EQ(bruit_config_on_log(config, 6, on_log, &freed, on_free), BRUIT_E_HANDLE);
    EQ(bruit_config_on_log(config, 6, NULL, &freed, on_free), BRUIT_E_HANDLE);
    EQ(bruit_config_free(config), BRUIT_E_HANDLE);
    EQ(bruit_node_new(config, &node), BRUIT_E_HANDLE);
    STREQ(buf, "untouched");
    CHECK(copy == NULL && node == NULL && len == 99 && freed == 0);
}

void test_tokens(void) {
    long here = 0;
    void *heap = calloc(1, 64);
    bruit_config *config = test_config("tokens", "manual");
    bruit_runtime *runtime = NULL;
    bruit_node *node = NULL;
    OK(bruit_runtime_new(&runtime));
    OK(bruit_node_new(config, &node));

    void *garbage[] = {(void *)1, (void *)8, (void *)-1, (void *)0x7fffffffUL, &here, heap, (void *)"text",
                       (char *)node + 1, (char *)node - 1, (char *)node + 16, config, runtime};
    for (size_t n = 0; n < sizeof garbage / sizeof *garbage; n++)
        refused(garbage[n]);
    garbage[10] = node; /* in the place of the one that is no garbage here */
    for (size_t n = 0; n < sizeof garbage / sizeof *garbage; n++)
        refused_config(garbage[n]);
    EQ(bruit_runtime_free((bruit_runtime *)config), BRUIT_E_HANDLE);
    EQ(bruit_config_set_runtime(config, (bruit_runtime *)node), BRUIT_E_HANDLE);

    /* None of this has harmed the real ones. */
    EQ(bruit_node_state(node), BRUIT_NODE_NEW);
    OK(bruit_config_set_runtime(config, runtime));

    OK(bruit_node_start(node));
    OK(bruit_node_free(node));
    refused(node);
    OK(bruit_runtime_free(runtime));
    EQ(bruit_runtime_free(runtime), BRUIT_E_HANDLE);
    EQ(bruit_config_set_runtime(config, runtime), BRUIT_E_HANDLE);
    OK(bruit_config_free(config));
    refused_config(config);

    /* The next node may live where the old one was, but is not mistaken for it. */
    bruit_node *released = test_started("released", "thread");
    CHECK(released != node);
    refused(node);
    OK(bruit_node_release(released));
    refused(released);
    free(heap);
}

static void *frees(void *node) {
    int rc;
    while ((rc = bruit_node_state(node)) >= 0)
        if (bruit_node_free(node) == BRUIT_OK)
            return node;
    EQ(rc, BRUIT_E_HANDLE);
    return NULL;
}

void test_racing_free(void) {
    for (int round = 0; round < 20; round++) {
        pthread_t racers[4];
        int winners = 0;
        bruit_node *node = test_started("race", "thread");
        for (int n = 0; n < 4; n++)
            CHECK(pthread_create(&racers[n], NULL, frees, node) == 0);
        for (int n = 0; n < 4; n++) {
            void *won;
            pthread_join(racers[n], &won);
            winners += won != NULL;
        }
        EQ(winners, 1);
    }
}
