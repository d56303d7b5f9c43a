// The same in C++, with cppzmq and msgpack-cxx: g++ -std=c++17 listen.cpp -o listen -lzmq
#include <cstdio>
#include <cstring>
#include <map>
#include <msgpack.hpp>
#include <zmq.hpp>

template <typename T> std::vector<T> array(const msgpack::object& field) {
  std::vector<T> values(field.via.bin.size / sizeof(T));
  std::memcpy(values.data(), field.via.bin.ptr, field.via.bin.size);
  return values;
}

int main() {
  zmq::context_t context;
  zmq::socket_t socket(context, zmq::socket_type::sub);
  socket.connect("tcp://127.0.0.1:5555");
  socket.set(zmq::sockopt::subscribe, "tracks/");
  for (zmq::message_t part; socket.recv(part);) {
    const auto body = part.to_string_view().substr(part.to_string_view().find('\0') + 1);
    const auto parsed = msgpack::unpack(body.data(), body.size());
    auto message = parsed->as<std::map<std::string, msgpack::object>>();
    const auto ids = array<int32_t>(message["ids"]);
    const auto xy = array<float>(message["xy"]);  // image pixels, x before y
    const auto visible = array<uint8_t>(message["visible"]);
    for (size_t i = 0; i < ids.size(); i++)
      if (visible[i]) std::printf("point %d at %.1f, %.1f\n", ids[i], xy[2 * i], xy[2 * i + 1]);
  }
}
