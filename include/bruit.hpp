// bruit for C++17: thin, header-only, move-only wrappers around bruit.h, whose comments have the details.
//
//     bruit::config config;
//     config.set("name", "a").set("bind", "127.0.0.1:0").seed("127.0.0.1:18946");
//     bruit::node node(config);
//     node.on_event(BRUIT_EVENT_JOIN, [](const bruit::event &event) { std::cout << event.member()->name() << '\n'; });
//     node.start();
//     for (bruit::member member : node.members())
//         std::cout << member.name() << " at " << member.address() << '\n';
//
// What fails throws bruit::error. What a callback throws goes to node::on_exception, else to the log, else nowhere: it never crosses
// into bruit.

#ifndef BRUIT_HPP
#define BRUIT_HPP

#include "bruit.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace bruit {

/// Wait for ever.
inline constexpr std::chrono::milliseconds forever{-1};
/// Begin and return at once.
inline constexpr std::chrono::milliseconds now{0};

/// Error codes BRUIT_E_* as a std::error_category.
inline const std::error_category &category() noexcept {
    struct codes final : std::error_category {
        const char *name() const noexcept override { return "bruit"; }
        std::string message(int code) const override { return bruit_strerror(code); }
    };
    static const codes instance;
    return instance;
}

/// What a failed call throws: code().value() is a BRUIT_E_*, what() has the detail.
class error : public std::system_error {
public:
    error(int code, const std::string &text) : std::system_error(code, category(), text) {}
    /// The operating system's errno, or 0.
    int os() const noexcept { return os_; }

    /// Of the last call that failed on this thread.
    static error last(int code) {
        error made(code, bruit_last_error());
        made.os_ = bruit_last_errno();
        return made;
    }

private:
    int os_ = 0;
};

namespace detail {

inline int check(int code) {
    if (code < 0)
        throw error::last(code);
    return code;
}

inline int milliseconds(std::chrono::milliseconds timeout) {
    if (timeout.count() > 0x7fffffff)
        return BRUIT_FOREVER;
    return static_cast<int>(timeout.count());
}

inline std::vector<const char *> pointers(const std::vector<std::string> &texts) {
    std::vector<const char *> all;
    for (const std::string &text : texts)
        all.push_back(text.c_str());
    return all;
}

/// The text that a function writes to a buffer, asking again while it does not fit.
template <class Call> std::string text(Call call) {
    std::string buffer(64, '\0');
    for (;;) {
        std::size_t len = 0;
        int code = call(&buffer[0], buffer.size(), &len);
        if (code == BRUIT_E_BUFFER) {
            buffer.resize(len);
            continue;
        }
        check(code);
        buffer.resize(len);
        return buffer;
    }
}

using log_function = std::function<void(int level, std::string_view target, std::string_view text)>;
using exception_function = std::function<void(std::exception_ptr)>;

/// Where exceptions of a node's callbacks go; shared by its subscriptions, so that the node can be moved.
struct sink {
    std::shared_ptr<log_function> log;
    std::mutex lock;
    std::shared_ptr<exception_function> handler;

    void take(std::exception_ptr thrown) noexcept {
        try {
            std::shared_ptr<exception_function> handle;
            {
                std::lock_guard<std::mutex> guard(lock);
                handle = handler;
            }
            if (handle && *handle)
                (*handle)(thrown);
            else if (log && *log)
                (*log)(BRUIT_LEVEL_ERROR, "callback", what(thrown));
        } catch (...) {
            // A handler that throws has nobody left to tell.
        }
    }

    static std::string what(std::exception_ptr thrown) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception &e) {
            return std::string("a callback threw: ") + e.what();
        } catch (...) {
            return "a callback threw something that is no std::exception";
        }
    }
};

} // namespace detail

/// A look at one member; valid as long as the snapshot or event that it came from.
class member {
public:
    explicit member(const bruit_member *raw) noexcept : raw_(raw) {}

    std::string_view name() const noexcept { return raw_->name; }
    std::string_view address() const noexcept { return raw_->address; }
    std::string_view ip() const noexcept { return raw_->ip; }
    std::uint16_t port() const noexcept { return static_cast<std::uint16_t>(raw_->port); }
    /// BRUIT_MEMBER_ALIVE, _SUSPECT, _DEAD or _LEFT.
    std::uint32_t state() const noexcept { return raw_->state; }
    std::string_view state_name() const noexcept { return bruit_member_state_name(raw_->state); }
    bool is_local() const noexcept { return (raw_->flags & BRUIT_MEMBER_LOCAL) != 0; }
    bool is_neighbour() const noexcept { return (raw_->flags & BRUIT_MEMBER_NEIGHBOUR) != 0; }
    std::uint64_t epoch() const noexcept { return raw_->epoch; }
    std::uint64_t incarnation() const noexcept { return raw_->incarnation; }
    std::chrono::milliseconds state_age() const noexcept {
        return std::chrono::milliseconds(static_cast<std::chrono::milliseconds::rep>(raw_->state_age_ms));
    }
    /// 0 where unknown.
    std::chrono::microseconds rtt() const noexcept {
        return std::chrono::microseconds(static_cast<std::chrono::microseconds::rep>(raw_->rtt_us));
    }
    std::uint32_t app_version() const noexcept { return raw_->app_version; }

    /// A value of its metadata.
    std::optional<std::string_view> meta(const std::string &key) const {
        const void *value = nullptr;
        std::size_t len = 0;
        int code = bruit_member_meta(raw_, key.c_str(), &value, &len);
        if (code == BRUIT_E_NOT_FOUND)
            return std::nullopt;
        detail::check(code);
        return std::string_view(static_cast<const char *>(value), len);
    }

    /// All of its metadata, in order of keys.
    std::vector<std::pair<std::string_view, std::string_view>> meta() const {
        std::vector<std::pair<std::string_view, std::string_view>> all(bruit_member_meta_len(raw_));
        for (std::size_t n = 0; n < all.size(); n++) {
            const char *key = nullptr;
            const void *value = nullptr;
            std::size_t len = 0;
            detail::check(bruit_member_meta_at(raw_, n, &key, &value, &len));
            all[n] = {key, std::string_view(static_cast<const char *>(value), len)};
        }
        return all;
    }

    const bruit_member *raw() const noexcept { return raw_; }

private:
    const bruit_member *raw_;
};

/// A snapshot of all members.
class members {
public:
    explicit members(bruit_members *raw) noexcept : raw_(raw) {}

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = member;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = member;

        iterator(const bruit_members *raw, std::size_t at) noexcept : raw_(raw), at_(at) {}
        member operator*() const noexcept { return member(bruit_members_at(raw_, at_)); }
        iterator &operator++() noexcept {
            ++at_;
            return *this;
        }
        iterator operator++(int) noexcept { return iterator(raw_, at_++); }
        bool operator==(const iterator &other) const noexcept { return at_ == other.at_; }
        bool operator!=(const iterator &other) const noexcept { return at_ != other.at_; }

    private:
        const bruit_members *raw_;
        std::size_t at_;
    };

    std::size_t size() const noexcept { return bruit_members_len(raw_.get()); }
    bool empty() const noexcept { return size() == 0; }
    iterator begin() const noexcept { return iterator(raw_.get(), 0); }
    iterator end() const noexcept { return iterator(raw_.get(), size()); }
    /// `index` below size().
    member operator[](std::size_t index) const noexcept { return member(bruit_members_at(raw_.get(), index)); }

    /// To compare with event::view().
    std::uint64_t view() const noexcept { return bruit_members_view(raw_.get()); }
    member local() const noexcept { return member(bruit_members_local(raw_.get())); }
    std::optional<member> find(const std::string &name) const {
        const bruit_member *found = bruit_members_find(raw_.get(), name.c_str());
        return found ? std::optional<member>(member(found)) : std::nullopt;
    }
    /// Those alive or suspected that have "key", or "key=value".
    std::vector<member> with(const std::string &key_or_key_value) const {
        std::vector<const bruit_member *> found(size());
        found.resize(bruit_members_with(raw_.get(), key_or_key_value.c_str(), found.data(), found.size()));
        return std::vector<member>(found.begin(), found.end());
    }

    const bruit_members *raw() const noexcept { return raw_.get(); }

private:
    struct freed {
        void operator()(bruit_members *raw) const noexcept { bruit_members_free(raw); }
    };
    std::unique_ptr<bruit_members, freed> raw_;
};

/// A look at one event; valid during the callback, or as long as the taken_event.
class event {
public:
    explicit event(const bruit_event *raw) noexcept : raw_(raw) {}

    /// BRUIT_EVENT_*
    std::uint32_t kind() const noexcept { return raw_->kind; }
    std::string_view name() const noexcept { return bruit_event_name(raw_->kind); }
    /// Bits BRUIT_CHANGED_*
    std::uint32_t changed() const noexcept { return raw_->changed; }
    std::uint64_t view() const noexcept { return raw_->view; }
    bool has_member() const noexcept { return raw_->member != nullptr; }
    std::optional<bruit::member> member() const { return optional(raw_->member); }
    std::optional<bruit::member> before() const { return optional(raw_->before); }
    std::uint64_t id() const noexcept { return raw_->id; }
    std::uint64_t count() const noexcept { return raw_->count; }
    int status() const noexcept { return raw_->status; }
    std::string_view text() const noexcept { return raw_->text ? raw_->text : ""; }

    const bruit_event *raw() const noexcept { return raw_; }

private:
    static std::optional<bruit::member> optional(const bruit_member *raw) {
        return raw ? std::optional<bruit::member>(bruit::member(raw)) : std::nullopt;
    }
    const bruit_event *raw_;
};

/// An event that node::next_event took; may outlive its node.
class taken_event : public event {
public:
    explicit taken_event(const bruit_event *raw) noexcept : event(raw), own_(raw) {}

private:
    struct freed {
        void operator()(const bruit_event *raw) const noexcept { bruit_event_free(raw); }
    };
    std::unique_ptr<const bruit_event, freed> own_;
};

/// Threads that nodes share; see config::runtime.
class runtime {
public:
    runtime() { detail::check(bruit_runtime_new(&raw_)); }
    runtime(runtime &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    runtime &operator=(runtime &&other) noexcept {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~runtime() {
        if (raw_)
            bruit_runtime_free(raw_);
    }

    bruit_runtime *raw() const noexcept { return raw_; }

private:
    bruit_runtime *raw_ = nullptr;
};

/// How a node shall be. Setters can be chained.
class config {
public:
    config() { detail::check(bruit_config_new(&raw_)); }
    config(config &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)), log_(std::move(other.log_)) {}
    config &operator=(config &&other) noexcept {
        std::swap(raw_, other.raw_);
        std::swap(log_, other.log_);
        return *this;
    }
    ~config() {
        if (raw_)
            bruit_config_free(raw_);
    }

    /// A copy, since copying does not happen by itself.
    config dup() const {
        config copy(nullptr);
        detail::check(bruit_config_dup(raw_, &copy.raw_));
        copy.log_ = log_;
        return copy;
    }

    config &set(const std::string &key, const std::string &value) {
        detail::check(bruit_config_set(raw_, key.c_str(), value.c_str()));
        return *this;
    }
    config &load(const std::string &path) {
        detail::check(bruit_config_load(raw_, path.c_str()));
        return *this;
    }
    std::string get(const std::string &key) const {
        return detail::text([&](char *buffer, std::size_t cap, std::size_t *len) {
            return bruit_config_get(raw_, key.c_str(), buffer, cap, len);
        });
    }
    config &seed(const std::string &address) {
        detail::check(bruit_config_add_seed(raw_, address.c_str()));
        return *this;
    }
    /// BRUIT_KEY_LEN bytes.
    config &key(std::string_view bytes) {
        detail::check(bruit_config_add_key(raw_, bytes.data(), bytes.size()));
        return *this;
    }
    config &meta(const std::string &key, std::string_view value) {
        const char *data = value.empty() ? "" : value.data(); // an empty value is not the absence of one
        detail::check(bruit_config_set_meta(raw_, key.c_str(), data, value.size()));
        return *this;
    }
    config &adopt_sockets(int udp_fd, int tcp_fd) {
        detail::check(bruit_config_adopt_sockets(raw_, udp_fd, tcp_fd));
        return *this;
    }
    config &runtime(const bruit::runtime &shared) {
        detail::check(bruit_config_set_runtime(raw_, shared.raw()));
        return *this;
    }
    /// void(int level, std::string_view target, std::string_view text); what it throws is dropped.
    config &on_log(int max_level, detail::log_function hear) {
        auto shared = std::make_shared<detail::log_function>(std::move(hear));
        auto user = std::make_unique<std::shared_ptr<detail::log_function>>(shared);
        detail::check(bruit_config_on_log(raw_, max_level, &log, user.get(), &log_freed));
        user.release(); // bruit's now
        log_ = std::move(shared);
        return *this;
    }

    bruit_config *raw() const noexcept { return raw_; }

private:
    friend class node;
    explicit config(std::nullptr_t) noexcept {}

    static void log(int level, const char *target, const char *text, void *user) noexcept {
        try {
            (**static_cast<std::shared_ptr<detail::log_function> *>(user))(level, target, text);
        } catch (...) {
            // Where should one tell of a log that fails?
        }
    }
    static void log_freed(void *user) noexcept { delete static_cast<std::shared_ptr<detail::log_function> *>(user); }

    bruit_config *raw_ = nullptr;
    std::shared_ptr<detail::log_function> log_;
};

/// What a member said, in the callback that hears it; keep() for longer.
class message {
public:
    explicit message(const bruit_message *raw) noexcept : raw_(raw) {}
    std::string_view sender() const noexcept { return raw_->sender; }
    std::uint64_t epoch() const noexcept { return raw_->epoch; }
    std::string_view topic() const noexcept { return raw_->topic; }
    std::string_view data() const noexcept { return {static_cast<const char *>(raw_->data), raw_->len}; }
    /// Its sender waits for reply() or fail().
    bool is_request() const noexcept { return raw_->flags & BRUIT_MESSAGE_REQUEST; }
    void reply(std::string_view data) const { detail::check(bruit_message_reply(raw_, data.data(), data.size())); }
    void fail(const std::string &text, int code = BRUIT_E_REMOTE) const {
        detail::check(bruit_message_fail(raw_, code, text.c_str()));
    }
    /// Without a copy of the data. A request that nobody keeps and nobody answered is answered with BRUIT_E_NO_REPLY.
    class kept_message keep() const;

    const bruit_message *raw() const noexcept { return raw_; }

protected:
    const bruit_message *raw_;
};

/// One that is ours, also when the node is gone.
class kept_message : public message {
public:
    /// Takes over what bruit_message_ref(), bruit_node_request() or bruit_node_recv() gave.
    explicit kept_message(bruit_message *raw) noexcept : message(raw), owned_(raw) {}

private:
    struct unref {
        void operator()(bruit_message *raw) const noexcept { bruit_message_unref(raw); }
    };
    std::unique_ptr<bruit_message, unref> owned_;
};

/// Whom to ask, and what: node.query().
struct query {
    std::string topic;
    std::string data;
    /// Only these members; empty: all others.
    std::vector<std::string> names{};
    /// Only those with all of this metadata, "key" or "key=value".
    std::vector<std::string> tags{};
    /// 0: as long as is usual in a cluster of this size.
    std::chrono::milliseconds timeout{0};
    /// Members through which each answer comes once more: 0 to 8.
    std::uint32_t relay = 0;
    /// BRUIT_ACKS, BRUIT_LOOPBACK
    std::uint32_t flags = 0;
};

/// What comes of a question. Valid during the callback that it is given to; keep() what shall last.
class answer {
public:
    explicit answer(const bruit_answer *raw) noexcept : raw_(raw) {}
    /// BRUIT_ANSWER_*
    std::uint32_t kind() const noexcept { return raw_->kind; }
    std::string_view sender() const noexcept { return raw_->sender; }
    /// BRUIT_OK, or why there is no answer, or why it ended.
    int status() const noexcept { return raw_->status; }
    std::string_view text() const noexcept { return raw_->text; }
    std::string_view data() const noexcept {
        return raw_->reply ? std::string_view(static_cast<const char *>(raw_->reply->data), raw_->reply->len) : std::string_view();
    }
    /// Counts at the end: asked, answered, heard, gone.
    const bruit_answer *raw() const noexcept { return raw_; }

private:
    const bruit_answer *raw_;
};

inline kept_message message::keep() const { return kept_message(bruit_message_ref(raw_)); }

/// A byte stream, both ways. One thread may read it and another write it. The destructor closes it.
class stream {
public:
    stream() noexcept = default;
    /// Takes over what bruit_node_open_stream(), or a callback, gave.
    explicit stream(bruit_stream *raw) noexcept : raw_(raw) {}
    stream(stream &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    stream &operator=(stream &&other) noexcept {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~stream() { close(); }

    /// How many bytes, 0 at the end. Throws BRUIT_E_TIMEOUT, or BRUIT_E_BUSY where the timeout is 0.
    std::size_t read(void *buf, std::size_t cap, std::chrono::milliseconds timeout) {
        return static_cast<std::size_t>(detail::check(bruit_stream_read(raw_, buf, cap, detail::milliseconds(timeout))));
    }
    /// How many bytes there was room for.
    std::size_t write(std::string_view data, std::chrono::milliseconds timeout) {
        return static_cast<std::size_t>(
            detail::check(bruit_stream_write(raw_, data.data(), data.size(), detail::milliseconds(timeout))));
    }
    /// Waits for room as often as it takes.
    void write_all(std::string_view data) {
        while (!data.empty())
            data.remove_prefix(static_cast<std::size_t>(
                detail::check(bruit_stream_write(raw_, data.data(), data.size(), BRUIT_FOREVER))));
    }
    /// What is there to read, and what follows, to the end.
    std::string read_all() {
        std::string all;
        char part[16384];
        while (int count = detail::check(bruit_stream_read(raw_, part, sizeof part, BRUIT_FOREVER)))
            all.append(part, static_cast<std::size_t>(count));
        return all;
    }
    /// Readable while read() would not wait; with BRUIT_STREAM_WRITE while write() would not.
    int fd(int which = BRUIT_STREAM_READ) const { return detail::check(bruit_stream_fd(raw_, which)); }
    std::string peer() const {
        return detail::text([&](char *buf, std::size_t cap, std::size_t *len) { return bruit_stream_peer(raw_, buf, cap, len); });
    }
    std::string topic() const {
        return detail::text([&](char *buf, std::size_t cap, std::size_t *len) { return bruit_stream_topic(raw_, buf, cap, len); });
    }
    /// There is no more to come from here.
    void shutdown() { detail::check(bruit_stream_shutdown(raw_)); }
    void close() noexcept {
        if (raw_ != nullptr)
            bruit_stream_close(std::exchange(raw_, nullptr));
    }
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    bruit_stream *raw() const noexcept { return raw_; }

private:
    bruit_stream *raw_ = nullptr;
};

/// One member of one cluster. Thread-safe, but for moving it. The destructor releases it: it never blocks, and a callback that is under
/// way may outlast it; stop() or free() first where that matters.
class node {
public:
    explicit node(const config &from) : sink_(std::make_shared<detail::sink>()) {
        detail::check(bruit_node_new(from.raw_, &raw_));
        sink_->log = from.log_;
    }
    node(node &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)), sink_(std::move(other.sink_)) {}
    node &operator=(node &&other) noexcept {
        std::swap(raw_, other.raw_);
        std::swap(sink_, other.sink_);
        return *this;
    }
    ~node() {
        if (raw_)
            bruit_node_release(raw_);
    }

    void start() { detail::check(bruit_node_start(raw_)); }
    /// How many answered.
    int join(const std::vector<std::string> &addresses, std::chrono::milliseconds timeout) {
        std::vector<const char *> texts = detail::pointers(addresses);
        return detail::check(bruit_node_join(raw_, texts.data(), texts.size(), detail::milliseconds(timeout)));
    }
    void leave(std::chrono::milliseconds timeout) { detail::check(bruit_node_leave(raw_, detail::milliseconds(timeout))); }
    /// False where it is still stopping after the time.
    bool stop(std::chrono::milliseconds timeout = forever) {
        int code = bruit_node_stop(raw_, detail::milliseconds(timeout));
        if (code == BRUIT_E_TIMEOUT)
            return false;
        detail::check(code);
        return true;
    }
    /// Stops it, and waits for that; afterwards this object is empty.
    void free() {
        detail::check(bruit_node_free(raw_));
        raw_ = nullptr;
    }
    /// Gives it up without waiting, as the destructor does; afterwards this object is empty.
    void release() {
        detail::check(bruit_node_release(raw_));
        raw_ = nullptr;
    }

    /// BRUIT_NODE_*
    int state() const { return detail::check(bruit_node_state(raw_)); }
    std::string name() const {
        return detail::text([&](char *buffer, std::size_t cap, std::size_t *len) {
            return bruit_node_name(raw_, buffer, cap, len);
        });
    }
    std::string address() const {
        return detail::text([&](char *buffer, std::size_t cap, std::size_t *len) {
            return bruit_node_address(raw_, buffer, cap, len);
        });
    }

    void set(const std::string &key, const std::string &value) {
        detail::check(bruit_node_set(raw_, key.c_str(), value.c_str()));
    }
    /// Several keys at once are one UPDATE; std::nullopt deletes: node.set_meta({{"role", "db"}, {"zone", std::nullopt}}).
    void set_meta(std::initializer_list<std::pair<std::string, std::optional<std::string>>> changes) {
        std::vector<bruit_kv> all;
        for (const auto &[key, value] : changes)
            all.push_back({sizeof(bruit_kv), key.c_str(), value ? value->data() : nullptr, value ? value->size() : 0});
        detail::check(bruit_node_set_meta(raw_, all.data(), all.size()));
    }

    /// void(const bruit::event &). Returns the subscription, for unsubscribe.
    std::uint64_t on_event(std::uint32_t mask, std::function<void(const event &)> hear) {
        auto user = std::make_unique<listener>(listener{std::move(hear), sink_});
        std::uint64_t subscription = 0;
        detail::check(bruit_node_on_event(raw_, mask, &heard, user.get(), &listener_freed, &subscription));
        user.release(); // bruit's now
        return subscription;
    }
    /// void(const bruit::message &), for a topic or for all ("*"). Returns the subscription, for unsubscribe. What it throws while
    /// it hears a request is also the answer: BRUIT_E_REMOTE with the exception's text.
    std::uint64_t on_message(const std::string &topic, std::function<void(const message &)> hear) {
        auto user = std::make_unique<hearer>(hearer{std::move(hear), sink_});
        std::uint64_t subscription = 0;
        detail::check(bruit_node_on_message(raw_, topic.c_str(), &said, user.get(), &hearer_freed, &subscription));
        user.release(); // bruit's now
        return subscription;
    }
    /// Judges what others broadcast under a topic ("*" are all) before it goes on. What throws rejects.
    std::uint64_t on_validate(const std::string &topic, std::function<bool(const message &)> accepts) {
        auto user = std::make_unique<judge>(judge{std::move(accepts), sink_});
        std::uint64_t subscription = 0;
        detail::check(bruit_node_on_validate(raw_, topic.c_str(), &judged, user.get(), &judge_freed, &subscription));
        user.release(); // bruit's now
        return subscription;
    }
    /// To all members. flags: BRUIT_LOOPBACK, BRUIT_ORDERED, BRUIT_WAIT.
    void broadcast(const std::string &topic, std::string_view data, std::uint32_t flags = 0) {
        detail::check(bruit_node_broadcast(raw_, topic.c_str(), data.data(), data.size(), flags));
    }
    /// flags: BRUIT_RELIABLE, BRUIT_WAIT, or 0 for a datagram that may be lost.
    void send(const std::string &member, const std::string &topic, std::string_view data, std::uint32_t flags = BRUIT_RELIABLE) {
        detail::check(bruit_node_send(raw_, member.c_str(), topic.c_str(), data.data(), data.size(), flags));
    }
    /// To all others with this metadata, "key" or "key=value"; how many.
    int send_to_holders(const std::string &tag, const std::string &topic, std::string_view data, std::uint32_t flags = BRUIT_RELIABLE) {
        bruit_out out{};
        out.size = sizeof out;
        out.flags = flags;
        out.tag = tag.c_str();
        out.topic = topic.c_str();
        out.data = data.data();
        out.len = data.size();
        detail::check(bruit_node_submit(raw_, &out, 1));
        if (out.status < 0)
            throw error(out.status, bruit_strerror(out.status));
        return out.status;
    }
    /// To each of these; what became of each, in their order: BRUIT_OK or an error.
    std::vector<int> send_to_each(const std::vector<std::string> &members, const std::string &topic, std::string_view data, std::uint32_t flags = BRUIT_RELIABLE) {
        std::vector<const char *> names = detail::pointers(members);
        std::vector<int> statuses(members.size());
        if (members.empty())
            return statuses;
        bruit_out out{};
        out.size = sizeof out;
        out.flags = flags;
        out.members = names.data();
        out.member_count = names.size();
        out.statuses = statuses.data();
        out.topic = topic.c_str();
        out.data = data.data();
        out.len = data.size();
        detail::check(bruit_node_submit(raw_, &out, 1));
        if (out.status == BRUIT_E_INVALID)
            throw error(out.status, bruit_strerror(out.status));
        return statuses;
    }
    /// Asks all others, or those that match: void(const bruit::answer &) hears each answer, and the end. Returns a number for cancel().
    std::uint64_t query(const bruit::query &what, std::function<void(const answer &)> hear) {
        std::vector<const char *> names = detail::pointers(what.names), tags = detail::pointers(what.tags);
        bruit_query raw{};
        raw.size = sizeof raw;
        raw.flags = what.flags;
        raw.topic = what.topic.c_str();
        raw.data = what.data.data();
        raw.len = what.data.size();
        raw.names = names.data();
        raw.name_count = names.size();
        raw.tags = tags.data();
        raw.tag_count = tags.size();
        raw.timeout_ms = detail::milliseconds(what.timeout);
        raw.relay = what.relay;
        auto user = std::make_unique<asker>(asker{std::move(hear), sink_});
        std::uint64_t id = 0;
        detail::check(bruit_node_query_start(raw_, &raw, &answered, user.get(), &asker_freed, &id));
        user.release(); // bruit's now
        return id;
    }
    /// Gives a question up.
    void cancel(std::uint64_t id) { detail::check(bruit_node_cancel(raw_, id)); }
    /// The answer.
    kept_message request(const std::string &member, const std::string &topic, std::string_view data, std::chrono::milliseconds timeout) {
        bruit_message *reply = nullptr;
        detail::check(bruit_node_request(raw_, member.c_str(), topic.c_str(), data.data(), data.size(), detail::milliseconds(timeout), &reply));
        return kept_message(reply);
    }
    /// flags: BRUIT_COMPRESS.
    stream open_stream(const std::string &member, const std::string &topic, std::uint32_t flags = 0) {
        bruit_stream *opened = nullptr;
        detail::check(bruit_node_open_stream(raw_, member.c_str(), topic.c_str(), flags, &opened));
        return stream(opened);
    }
    /// void(bruit::stream), for the streams that members open under a topic, or under all ("*"). Returns the subscription.
    std::uint64_t on_stream(const std::string &topic, std::function<void(stream)> take) {
        auto user = std::make_unique<taker>(taker{std::move(take), sink_});
        std::uint64_t subscription = 0;
        detail::check(bruit_node_on_stream(raw_, topic.c_str(), &given, user.get(), &taker_freed, &subscription));
        user.release(); // bruit's now
        return subscription;
    }
    void unsubscribe(std::uint64_t subscription) { detail::check(bruit_node_unsubscribe(raw_, subscription)); }
    /// Hears what callbacks throw, on the thread that they ran on: void(std::exception_ptr).
    void on_exception(detail::exception_function handle) {
        auto shared = std::make_shared<detail::exception_function>(std::move(handle));
        std::lock_guard<std::mutex> guard(sink_->lock);
        sink_->handler = std::move(shared);
    }

    int event_fd() const { return detail::check(bruit_node_event_fd(raw_)); }
    int dispatch(int max = 0) { return detail::check(bruit_node_dispatch(raw_, max)); }
    bool wait(std::chrono::milliseconds timeout) {
        return detail::check(bruit_node_wait(raw_, detail::milliseconds(timeout))) == 1;
    }
    void wakeup() { detail::check(bruit_node_wakeup(raw_)); }
    std::optional<taken_event> next_event() {
        const bruit_event *taken = nullptr;
        if (detail::check(bruit_node_next_event(raw_, &taken)) == 0)
            return std::nullopt;
        return std::optional<taken_event>(std::in_place, taken);
    }

    bruit::members members() const {
        bruit_members *snapshot = nullptr;
        detail::check(bruit_node_members(raw_, &snapshot));
        return bruit::members(snapshot);
    }
    std::uint64_t view() const noexcept { return bruit_node_view(raw_); }

    bruit_stats stats() const {
        bruit_stats all{};
        all.size = sizeof all;
        detail::check(bruit_node_stats(raw_, &all));
        return all;
    }
    std::uint64_t stat(const std::string &counter) const {
        std::uint64_t value = 0;
        detail::check(bruit_node_stat(raw_, counter.c_str(), &value));
        return value;
    }

    bruit_node *raw() const noexcept { return raw_; }

private:
    struct listener {
        std::function<void(const event &)> hear;
        std::shared_ptr<detail::sink> sink;
    };
    static void heard(const bruit_event *raw, void *user) noexcept {
        listener *to = static_cast<listener *>(user);
        try {
            to->hear(event(raw));
        } catch (...) {
            to->sink->take(std::current_exception());
        }
    }
    static void listener_freed(void *user) noexcept { delete static_cast<listener *>(user); }

    struct hearer {
        std::function<void(const message &)> hear;
        std::shared_ptr<detail::sink> sink;
    };
    static void said(const bruit_message *raw, void *user) noexcept {
        hearer *to = static_cast<hearer *>(user);
        try {
            to->hear(message(raw));
        } catch (const std::exception &thrown) {
            refuse(raw, thrown.what());
            to->sink->take(std::current_exception());
        } catch (...) {
            refuse(raw, "the handler threw something that is no std::exception");
            to->sink->take(std::current_exception());
        }
    }
    static void refuse(const bruit_message *raw, const char *text) noexcept {
        if (raw->flags & BRUIT_MESSAGE_REQUEST)
            bruit_message_fail(raw, BRUIT_E_REMOTE, text); // BRUIT_E_STATE where it had answered
    }
    static void hearer_freed(void *user) noexcept { delete static_cast<hearer *>(user); }

    struct asker {
        std::function<void(const answer &)> hear;
        std::shared_ptr<detail::sink> sink;
    };
    static void answered(const bruit_answer *raw, void *user) noexcept {
        asker *to = static_cast<asker *>(user);
        try {
            to->hear(answer(raw));
        } catch (...) {
            to->sink->take(std::current_exception());
        }
    }
    static void asker_freed(void *user) noexcept { delete static_cast<asker *>(user); }

    struct taker {
        std::function<void(stream)> take;
        std::shared_ptr<detail::sink> sink;
    };
    static void given(bruit_stream *raw, void *user) noexcept {
        taker *to = static_cast<taker *>(user);
        try {
            to->take(stream(raw));
        } catch (...) {
            to->sink->take(std::current_exception());
        }
    }
    static void taker_freed(void *user) noexcept { delete static_cast<taker *>(user); }
    struct judge {
        std::function<bool(const message &)> accepts;
        std::shared_ptr<detail::sink> sink;
    };
    static int judged(const bruit_message *raw, void *user) noexcept {
        judge *by = static_cast<judge *>(user);
        try {
            return by->accepts(message(raw)) ? 1 : 0;
        } catch (...) {
            by->sink->take(std::current_exception());
            return 0;
        }
    }
    static void judge_freed(void *user) noexcept { delete static_cast<judge *>(user); }

    bruit_node *raw_ = nullptr;
    std::shared_ptr<detail::sink> sink_;
};

} // namespace bruit

#endif // BRUIT_HPP
