// The link to the run: pictures come in, one at a time; requests go out, each gets its answer. It comes back by itself.

const FIRST_WAIT_MS = 300, LONGEST_WAIT_MS = 5000;
const SILENT_MS = 10000; // the run says something every few seconds; after this it is away, though no one said so

/** Splits a binary message into its header and its pictures. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const pictures = header.pictures.map((size) => {
    const part = new Uint8Array(buffer, at, size);
    at += size;
    return new Blob([part], { type: "image/jpeg" });
  });
  return { header, pictures };
}

export class Link {
  /** `seen` draws a message and returns a promise; `told` gets heartbeats, `listed` the cameras whenever they change; `stands` gets "open", "lost", or "ended" where the run is there and knows this session no more. */
  constructor({ seen, told, listed, stands }) {
    this.seen = seen;
    this.told = told;
    this.listed = listed;
    this.stands = stands;
    this.heardAt = 0;
    this.looking = null;
    this.numbers = 0;
    this.waiting = new Map();
    this.waitMs = FIRST_WAIT_MS;
    this.ended = false;
    this.open();
    setInterval(() => {
      if (this.socket.readyState === WebSocket.OPEN && performance.now() - this.heardAt > SILENT_MS) this.lose();
    }, SILENT_MS / 5);
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/stream`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.heardAt = performance.now();
      this.waitMs = FIRST_WAIT_MS;
      this.ended = false;
      this.stands("open");
      if (this.looking) this.send({ look: this.looking });
    };
    this.socket.onmessage = (event) => {
      this.heardAt = performance.now();
      this.hear(event.data);
    };
    this.socket.onclose = () => this.lose();
  }

  /** Gives the link up and tries again in a moment. */
  lose() {
    const { socket } = this;
    socket.onclose = socket.onmessage = null; // closing may take as long as the silence
    socket.close();
    this.stands(this.ended ? "ended" : "lost");
    for (const { refuse } of this.waiting.values()) refuse(new Error("the link was lost"));
    this.waiting.clear();
    this.askWhether();
    setTimeout(() => this.open(), this.waitMs);
    this.waitMs = Math.min(2 * this.waitMs, LONGEST_WAIT_MS);
  }

  /** Asks whether the run is there and only this session is over. */
  async askWhether() {
    const reply = await fetch("api/about").catch(() => null);
    this.ended = reply?.status === 401;
    if (this.ended) this.stands("ended");
  }

  async hear(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.heartbeat) return this.told(message.heartbeat);
      if (message.cameras) return this.listed(message.cameras);
      if (message.here) return;
      const asked = this.waiting.get(message.answer);
      this.waiting.delete(message.answer);
      if (!asked) return;
      if (message.result) asked.settle(message.result);
      else asked.refuse(new Error(message.message));
      return;
    }
    const { header, pictures } = unpack(data);
    const socket = this.socket;
    await this.seen(header, pictures);
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ ack: header.number }));
  }

  /** Looks at one camera, or at all (null), at this many pixels of width. */
  look(camera, width) {
    this.looking = { camera, width: Math.round(width) };
    this.send({ look: this.looking });
  }

  /** Asks the run for something; the promise is its answer, or fails with a sentence for people. */
  ask(camera, command, parameters = {}) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("there is no link to the run"));
    const number = ++this.numbers;
    return new Promise((settle, refuse) => {
      this.waiting.set(number, { settle, refuse });
      this.send({ ask: number, command, arguments: parameters, ...(camera === null ? {} : { camera }) });
    });
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }
}
