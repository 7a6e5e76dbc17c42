// The service's reading API. The token and the reader's name live in this tab's session storage and nowhere else.

const TOKEN = "spinexr.token";
const READER = "spinexr.reader";

/** An answer that is not a success: `status`, and what the service said. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const identity = {
  get reader() {
    return sessionStorage.getItem(READER) ?? "";
  },
  set(reader, token) {
    sessionStorage.setItem(READER, reader);
    sessionStorage.setItem(TOKEN, token);
  },
  forget() {
    sessionStorage.removeItem(READER);
    sessionStorage.removeItem(TOKEN);
  },
};

async function request(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  if (identity.reader) headers["X-Reader"] = identity.reader;
  let response;
  try {
    response = await fetch(`/api/v1/reading/${path}`, { ...options, headers, cache: "no-store" });
  } catch {
    throw new ApiError(0, "The service cannot be reached.");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new ApiError(response.status, problem.detail ?? problem.title ?? `The service answered ${response.status}.`);
  }
  return response;
}

/** { labels, model, films } */
export async function films() {
  return (await request("films")).json();
}

/** { record, reading, version, evidence, others } */
export async function film(id) {
  return (await request(`films/${id}`)).json();
}

/** { width, height, values, low, high, inverted }: grey values and the window that the film asks for. */
export async function pixels(id, signal) {
  const response = await request(`films/${id}/pixels`, { signal });
  const header = (name) => response.headers.get(`X-Film-${name}`);
  const [width, height] = [Number(header("Width")), Number(header("Height"))];
  const bytes = await response.arrayBuffer();
  if (bytes.byteLength !== width * height * 2) throw new ApiError(0, "The film did not arrive whole.");
  return {
    width,
    height,
    values: new Uint16Array(bytes),
    low: Number(header("Low")),
    high: Number(header("High")),
    inverted: header("Inverted") === "true",
  };
}

/** A picture of where the evidence of "film" or "boxes" lies, as an object URL. */
export async function evidence(id, of) {
  return URL.createObjectURL(await (await request(`films/${id}/evidence/${of}`)).blob());
}

/** Saves a reading over the version it was made from; gives the new version. */
export async function save(id, reading, version) {
  const response = await request(`films/${id}/reading`, {
    method: "PUT",
    headers: { "Content-Type": "application/json", "If-Match": `"${version}"` },
    body: JSON.stringify(reading),
    keepalive: true, // a page that is being closed still saves
  });
  return (await response.json()).version;
}
