// A small curve of the last minute.

const MINUTE_MS = 60_000;

export class Curve {
  constructor(canvas) {
    this.canvas = canvas;
    this.samples = [];
  }

  add(value) {
    const now = performance.now();
    this.samples.push([now, value]);
    while (this.samples.length && now - this.samples[0][0] > MINUTE_MS) this.samples.shift();
  }

  clear() {
    this.samples = [];
    this.draw();
  }

  draw() {
    const { canvas, samples } = this;
    const scale = devicePixelRatio || 1;
    const width = (canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale)));
    const height = (canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale)));
    const context = canvas.getContext("2d");
    if (samples.length < 2) return;
    const now = performance.now();
    const top = Math.max(...samples.map(([, value]) => value), 1e-6) * 1.1;
    context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--accent");
    context.lineWidth = 1.5 * scale;
    context.beginPath();
    for (const [at, value] of samples) {
      context.lineTo(width * (1 - (now - at) / MINUTE_MS), height - 2 * scale - (height - 4 * scale) * (value / top));
    }
    context.stroke();
  }
}
