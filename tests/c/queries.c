/* Questions to many, and messages to several: asked, answered, gathered, given up. */
#include "test.h"

/* What came of a question, as "sender data", and its end. */
typedef struct poll_ {
    pthread_mutex_t lock;
    pthread_cond_t more;
    int replies, heard, errors, ended, freed, end_status, last_error;
    size_t asked, answered, heard_at_end;
    char said[8][64];
    bruit_message *kept;
} poll_;

static void poll_hear(const bruit_answer *answer, void *user) {
    poll_ *p = user;
    pthread_mutex_lock(&p->lock);
    EQ(answer->size, sizeof *answer);
    CHECK(p->ended == 0);
    switch (answer->kind) {
    case BRUIT_ANSWER_REPLY:
        CHECK((answer->reply != NULL) == (answer->status == BRUIT_OK));
        if (answer->reply != NULL) {
            snprintf(p->said[p->replies++], sizeof p->said[0], "%s %.*s", answer->sender, (int)answer->reply->len, (const char *)answer->reply->data);
            STREQ(answer->reply->sender, answer->sender);
            if (p->kept == NULL)
                p->kept = bruit_message_ref(answer->reply);
        } else {
            CHECK(strlen(answer->text) > 0);
            p->errors++;
            p->last_error = answer->status;
        }
        break;
    case BRUIT_ANSWER_HEARD:
        CHECK(strlen(answer->sender) == 1);
        p->heard++;
        break;
    default:
        EQ(answer->kind, BRUIT_ANSWER_END);
        p->end_status = answer->status;
        p->asked = answer->asked;
        p->answered = answer->answered;
        p->heard_at_end = answer->heard;
        p->ended = 1;
    }
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->lock);
}

static void poll_freed(void *user) {
    poll_ *p = user;
    pthread_mutex_lock(&p->lock);
    p->freed++;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->lock);
}

static poll_ *poll_new(void) {
    poll_ *p = calloc(1, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    return p;
}

/* Until that many have said something, or it is freed: which is the last. */
static void poll_reach(poll_ *p, const int *count, int wanted) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE_MS / 1000;
    pthread_mutex_lock(&p->lock);
    while (*count < wanted)
        CHECK(pthread_cond_timedwait(&p->more, &p->lock, &end) == 0);
    pthread_mutex_unlock(&p->lock);
}

static void answer_with_name(const bruit_message *message, void *user) {
    const char *name = user;
    if (message->flags & BRUIT_MESSAGE_REQUEST) {
        CHECK(message->flags & BRUIT_MESSAGE_QUERY);
        OK(bruit_message_reply(message, name, strlen(name)));
    }
}

static void answer_never(const bruit_message *message, void *user) {
    bruit_message **kept = user;
    bruit_message_unref(*kept);
    *kept = bruit_message_ref(message);
}

static bruit_query question(const char *topic) {
    bruit_query q;
    memset(&q, 0, sizeof q);
    q.size = sizeof q;
    q.topic = topic;
    q.data = "?";
    q.len = 1;
    q.timeout_ms = PATIENCE_MS;
    return q;
}

static size_t holders(bruit_node *node, const char *tag) {
    bruit_members *members;
    OK(bruit_node_members(node, &members));
    size_t count = bruit_members_with(members, tag, NULL, 0);
    bruit_members_free(members);
    return count;
}

void test_queries(void) {
    bruit_node *nodes[4];
    const char *names[] = {"a", "b", "c", "d"};
    bruit_message *unanswered = NULL;
    uint64_t id;
    for (int n = 0; n < 4; n++) {
        nodes[n] = test_started(names[n], "thread");
        OK(bruit_node_on_message(nodes[n], "name", answer_with_name, (void *)names[n], NULL, NULL));
        if (n > 0)
            test_join(nodes[n], nodes[0]);
    }
    bruit_kv here = {sizeof here, "here", "", 0}, role = {sizeof role, "role", "db", 2};
    for (int n = 0; n < 4; n++)
        OK(bruit_node_set_meta(nodes[n], &here, 1));
    OK(bruit_node_set_meta(nodes[2], &role, 1));
    OK(bruit_node_on_message(nodes[2], "never", answer_never, &unanswered, NULL, NULL));
    EVENTUALLY(holders(nodes[0], "here") == 4 && holders(nodes[0], "role=db") == 1);

    /* All; with acknowledgements, and copies. */
    poll_ *all = poll_new();
    bruit_query q = question("name");
    q.flags = BRUIT_ACKS;
    q.relay = 2;
    OK(bruit_node_query_start(nodes[0], &q, poll_hear, all, poll_freed, &id));
    poll_reach(all, &all->freed, 1);
    EQ(all->replies, 3);
    EQ(all->asked, 3);
    EQ(all->answered, 3);
    EQ(all->heard_at_end, all->heard);
    OK(all->end_status);
    EQ(bruit_node_cancel(nodes[0], id), BRUIT_E_NOT_FOUND);
    CHECK(all->kept->len == 1); /* a reply outlives its callback */
    bruit_message_unref(all->kept);

    /* Some, oneself among them, and by metadata. */
    const char *some[] = {"a", "c"}, *tags[] = {"role=db"};
    poll_ *two = poll_new(), *db = poll_new();
    q = question("name");
    q.flags = BRUIT_LOOPBACK;
    q.names = some;
    q.name_count = 2;
    OK(bruit_node_query_start(nodes[0], &q, poll_hear, two, poll_freed, NULL));
    poll_reach(two, &two->freed, 1);
    EQ(two->replies, 2);
    q = question("name");
    q.tags = tags;
    q.tag_count = 1;
    OK(bruit_node_query_start(nodes[0], &q, poll_hear, db, poll_freed, NULL));
    poll_reach(db, &db->freed, 1);
    EQ(db->replies, 1);
    STREQ(db->said[0], "c c");

    /* Nobody listens; nobody answers, until it is given up. */
    poll_ *none = poll_new(), *never = poll_new();
    q = question("nothing");
    OK(bruit_node_query_start(nodes[0], &q, poll_hear, none, poll_freed, NULL));
    poll_reach(none, &none->freed, 1);
    EQ(none->errors, 3);
    EQ(none->last_error, BRUIT_E_NO_HANDLER);
    q = question("never");
    OK(bruit_node_query_start(nodes[0], &q, poll_hear, never, poll_freed, &id));
    poll_reach(never, &never->errors, 2);
    OK(bruit_node_cancel(nodes[0], id));
    poll_reach(never, &never->freed, 1);
    EQ(never->end_status, BRUIT_E_CANCELED);

    /* What cannot be asked. */
    bruit_query bad[6] = {question("a\nb"), question("x"), question("x"), question("x"), question("x"), question("x")};
    const char *nobody[] = {""}, *no_key[] = {"=x"};
    bad[1].relay = 9;
    bad[2].names = nobody;
    bad[2].name_count = 1;
    bad[3].tags = no_key;
    bad[3].tag_count = 1;
    bad[4].size = 8;
    bad[5].timeout_ms = -1;
    poll_ *unused = poll_new();
    for (int n = 0; n < 6; n++)
        EQ(bruit_node_query_start(nodes[0], &bad[n], poll_hear, unused, poll_freed, NULL), BRUIT_E_INVALID);
    EQ(bruit_node_query_start(nodes[0], NULL, poll_hear, unused, poll_freed, NULL), BRUIT_E_INVALID);
    EQ(unused->freed, 0);

    /* A message to several, with a result for each. */
    const char *several[] = {"b", "nobody", "c"};
    int statuses[3] = {1, 1, 1};
    uint64_t ids[3] = {0};
    bruit_out out;
    memset(&out, 0, sizeof out);
    out.size = sizeof out;
    out.flags = BRUIT_RECEIPT;
    out.members = several;
    out.member_count = 3;
    out.statuses = statuses;
    out.ids = ids;
    out.topic = "name";
    EQ(bruit_node_submit(nodes[0], &out, 1), 1);
    EQ(out.status, 2);
    OK(statuses[0]);
    EQ(statuses[1], BRUIT_E_NOT_FOUND);
    OK(statuses[2]);
    CHECK(ids[0] > 0 && ids[1] == 0 && ids[2] > ids[0]);
    out.tag = "role";
    EQ(bruit_node_submit(nodes[0], &out, 1), 0);
    EQ(out.status, BRUIT_E_INVALID);
    out.tag = NULL;
    out.members = several + 1;
    out.member_count = 1;
    EQ(bruit_node_submit(nodes[0], &out, 1), 0);
    EQ(out.status, BRUIT_E_NOT_FOUND);

    /* A question that its node does not outlive. */
    poll_ *late = poll_new();
    q = question("never");
    OK(bruit_node_query_start(nodes[0], &q, poll_hear, late, poll_freed, NULL));
    poll_reach(late, &late->errors, 2);
    for (int n = 0; n < 4; n++)
        OK(bruit_node_free(nodes[n]));
    EQ(late->freed, 1);
    bruit_message_unref(unanswered);
    poll_ *polls[] = {all, two, db, none, never, unused, late};
    for (size_t n = 0; n < sizeof polls / sizeof *polls; n++) {
        if (polls[n] != all)
            bruit_message_unref(polls[n]->kept);
        free(polls[n]);
    }
}
