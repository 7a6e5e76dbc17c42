// Paints a film of 16-bit grey values through a window, in WebGL 2.
//
// The values stay integers in the texture and are interpolated in the shader, because a texture of 16-bit floats would
// lose the last five bits of a film. Where the film is shown smaller than it is, a pixel is the mean of the film pixels
// under it, up to 6 × 6 of them, so that fine lines do not flicker.

const VERTEX = `#version 300 es
void main() {
  vec2 corner = vec2((gl_VertexID << 1) & 2, gl_VertexID & 2);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D film;
uniform vec2 filmSize;
uniform vec3 view;      // x, y, scale; device px
uniform float paneHeight;
uniform vec2 window;    // lowest and highest value shown
uniform bool inverted;
out vec4 colour;

float value(ivec2 at) {
  return float(texelFetch(film, clamp(at, ivec2(0), ivec2(filmSize) - 1), 0).r);
}

float between(vec2 at) {
  vec2 centre = at - 0.5;
  ivec2 corner = ivec2(floor(centre));
  vec2 share = centre - vec2(corner);
  float top = mix(value(corner), value(corner + ivec2(1, 0)), share.x);
  float bottom = mix(value(corner + ivec2(0, 1)), value(corner + ivec2(1, 1)), share.x);
  return mix(top, bottom, share.y);
}

void main() {
  vec2 screen = vec2(gl_FragCoord.x, paneHeight - gl_FragCoord.y);
  vec2 at = (screen - view.xy) / view.z;
  if (any(lessThan(at, vec2(0))) || any(greaterThanEqual(at, filmSize))) {
    colour = vec4(0, 0, 0, 1);
    return;
  }
  float grey = 0.0;
  float step = 1.0 / view.z;
  int taps = int(clamp(ceil(step), 1.0, 6.0));
  if (step <= 1.0) {
    grey = between(at);
  } else {
    for (int j = 0; j < taps; j++) {
      for (int i = 0; i < taps; i++) {
        vec2 offset = ((vec2(i, j) + 0.5) / float(taps) - 0.5) * step;
        grey += value(ivec2(at + offset));
      }
    }
    grey /= float(taps * taps);
  }
  float shown = clamp((grey - window.x) / max(window.y - window.x, 1e-6), 0.0, 1.0);
  if (inverted) shown = 1.0 - shown;
  colour = vec4(vec3(shown), 1);
}`;

function shader(gl, kind, source) {
  const made = gl.createShader(kind);
  gl.shaderSource(made, source);
  gl.compileShader(made);
  if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(made));
  return made;
}

export class Painter {
  /** Throws where the browser has no WebGL 2. */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false });
    if (!gl) throw new Error("This browser has no WebGL 2, which showing films needs.");
    const program = gl.createProgram();
    gl.attachShader(program, shader(gl, gl.VERTEX_SHADER, VERTEX));
    gl.attachShader(program, shader(gl, gl.FRAGMENT_SHADER, FRAGMENT));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.canvas = canvas;
    this.gl = gl;
    this.at = Object.fromEntries(
      ["filmSize", "view", "paneHeight", "window", "inverted"].map((name) => [name, gl.getUniformLocation(program, name)]),
    );
    this.film = null;
  }

  /** `film`: { width, height, values: Uint16Array }, or null. */
  setFilm(film) {
    const { gl } = this;
    this.film = film;
    if (!film) return;
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (film.width > most || film.height > most) {
      throw new Error(`The film has ${film.width} × ${film.height} pixels; this browser shows ${most} at most.`);
    }
    if (this.texture) gl.deleteTexture(this.texture);
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 2);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16UI, film.width, film.height, 0, gl.RED_INTEGER, gl.UNSIGNED_SHORT, film.values);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
    }
    for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) {
      gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE);
    }
  }

  /** `view` as in geometry.js; `window`: { low, high }, in the film's values. */
  paint(view, window, inverted) {
    const { gl, canvas, at } = this;
    const ratio = globalThis.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    gl.viewport(0, 0, width, height);
    if (!this.film) {
      gl.clearColor(0, 0, 0, 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
      return;
    }
    gl.uniform2f(at.filmSize, this.film.width, this.film.height);
    gl.uniform3f(at.view, view.x * ratio, view.y * ratio, view.scale * ratio);
    gl.uniform1f(at.paneHeight, height);
    gl.uniform2f(at.window, window.low, window.high);
    gl.uniform1i(at.inverted, inverted ? 1 : 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}
