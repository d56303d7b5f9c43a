// A camera's picture on a canvas: its frame, points with trails, hidden ones as dim rings, the box that is dragged.

const TRAIL_MS = 1000;
const RIM = "#0c0c10";

const ink = (color) => `#${color.toString(16).padStart(6, "0")}`;

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.header = null;
    this.image = null;
    this.trails = new Map(); // by id: [ms, x, y, ...], oldest first
    this.cleared = 0; // times
    this.box = null; // image pixels: [x, y, x, y]
    this.cross = null; // image pixels
  }

  /** Shows nothing: another camera's frame comes next. */
  clear() {
    this.cleared++;
    this.image?.close();
    this.header = this.image = this.box = this.cross = null;
    this.trails.clear();
    delete this.canvas.dataset.frame;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Shows a frame that has come; false if it was cleared meanwhile. */
  async show(header, blob) {
    const before = this.cleared;
    const image = await createImageBitmap(blob);
    if (before !== this.cleared) {
      image.close();
      return false;
    }
    this.image?.close();
    this.image = image;
    this.header = header;
    this.canvas.dataset.frame = header.frame; // for programs that drive the page
    this.follow();
    this.draw();
    return true;
  }

  /** Where the points were during the last second. */
  follow() {
    const { ids, xy, visible, captured_unix_ms: now } = this.header;
    const before = this.trails;
    this.trails = new Map();
    ids.forEach((id, row) => {
      const trail = (before.get(id) ?? []).filter(([at]) => now - at < TRAIL_MS && at < now);
      trail.push(visible[row] ? [now, xy[2 * row] / 100, xy[2 * row + 1] / 100] : [now, NaN, NaN]);
      this.trails.set(id, trail);
    });
  }

  /** The points of the frame that is shown: {id, x, y, visible, color}, image pixels. */
  points() {
    if (!this.header) return [];
    const { ids, xy, visible, colors, names } = this.header;
    return ids.map((id, row) => ({
      id, x: xy[2 * row] / 100, y: xy[2 * row + 1] / 100, visible: Boolean(visible[row]), color: ink(colors[row]), name: names[id] ?? "",
    }));
  }

  /** The point nearest to a place, within `reach` screen pixels of it; null if there is none. */
  nearest(place, reach = Infinity) {
    const most = reach * this.perPixel();
    let found = null, least = most;
    for (const point of this.points()) {
      const distance = Math.hypot(point.x - place.x, point.y - place.y);
      if (distance <= least) [found, least] = [point, distance];
    }
    return found;
  }

  /** Image pixels per screen pixel. */
  perPixel() {
    return this.header ? this.header.width / this.canvas.clientWidth : 1;
  }

  /** The image position under a pointer, or null outside the picture. */
  at(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    if (!this.header || !width) return null;
    const x = ((event.clientX - left) / width) * this.header.width;
    const y = ((event.clientY - top) / height) * this.header.height;
    return { x, y, inside: x >= 0 && y >= 0 && x <= this.header.width && y <= this.header.height };
  }

  draw() {
    const { canvas, header, image } = this;
    if (!header || !image) return;
    const scale = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round((width * header.height) / header.width));
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, width, height);
    const zoom = width / header.width;
    const unit = Math.min(Math.max(Math.min(width, height) / 480, 0.6), 3);
    context.lineJoin = "round";
    for (const { name, box } of header.objects) this.drawObject(context, name, box, zoom, unit);
    const points = this.points();
    for (const { id, color } of points) this.drawTrail(context, this.trails.get(id), color, zoom, unit);
    for (const point of points.sort((one, other) => one.visible - other.visible)) this.drawPoint(context, point, zoom, unit);
    if (this.box) {
      const [x, y, right, bottom] = this.box.map((value) => value * zoom);
      context.setLineDash([6 * unit, 4 * unit]);
      context.strokeStyle = "#ffffff";
      context.lineWidth = 1.5 * unit;
      context.strokeRect(x, y, right - x, bottom - y);
      context.setLineDash([]);
    }
    if (this.cross) this.drawCross(context, this.cross.x * zoom, this.cross.y * zoom, unit);
  }

  drawObject(context, name, box, zoom, unit) {
    context.beginPath();
    for (let corner = 0; corner < 4; corner++) context.lineTo(box[2 * corner] * zoom, box[2 * corner + 1] * zoom);
    context.closePath();
    for (const [color, width] of [[RIM, 4], ["#fafafa", 1.5]]) {
      context.strokeStyle = color;
      context.lineWidth = width * unit;
      context.stroke();
    }
    this.write(context, name, box[0] * zoom, box[1] * zoom - 6 * unit, "#ffffff", unit);
  }

  write(context, text, x, y, color, unit) {
    context.font = `${Math.round(13 * unit)}px system-ui, sans-serif`;
    context.lineWidth = 3 * unit;
    context.strokeStyle = RIM;
    context.strokeText(text, x, y);
    context.fillStyle = color;
    context.fillText(text, x, y);
  }

  drawTrail(context, trail, color, zoom, unit) {
    context.strokeStyle = color;
    context.lineWidth = 1.5 * unit;
    context.beginPath();
    let drawing = false;
    for (const [, x, y] of trail) {
      if (Number.isNaN(x)) drawing = false;
      else if (drawing) context.lineTo(x * zoom, y * zoom);
      else {
        context.moveTo(x * zoom, y * zoom);
        drawing = true;
      }
    }
    context.stroke();
  }

  drawPoint(context, { id, x, y, visible, color, name }, zoom, unit) {
    const radius = 4.5 * unit;
    context.beginPath();
    context.arc(x * zoom, y * zoom, radius, 0, 2 * Math.PI);
    context.lineWidth = visible ? 3 * unit : 3.5 * unit;
    context.strokeStyle = RIM;
    context.stroke();
    if (visible) {
      context.fillStyle = color;
      context.fill();
    } else {
      context.lineWidth = 1.5 * unit;
      context.strokeStyle = color;
      context.stroke();
    }
    if (name) this.write(context, name, x * zoom + 8 * unit, y * zoom - 6 * unit, visible ? "#ffffff" : "#b8c2c9", unit);
    if (id === this.header.inspected) {
      context.beginPath();
      context.arc(x * zoom, y * zoom, 11 * unit, 0, 2 * Math.PI);
      context.lineWidth = 2 * unit;
      context.strokeStyle = "#ffffff";
      context.stroke();
    }
  }

  drawCross(context, x, y, unit) {
    for (const [color, width] of [[RIM, 4], ["#ffffff", 1.5]]) {
      context.strokeStyle = color;
      context.lineWidth = width * unit;
      context.beginPath();
      context.moveTo(x - 12 * unit, y);
      context.lineTo(x + 12 * unit, y);
      context.moveTo(x, y - 12 * unit);
      context.lineTo(x, y + 12 * unit);
      context.stroke();
    }
  }
}
