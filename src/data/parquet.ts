/**
 * Reads rows from Parquet files (https://parquet.apache.org/docs/file-format/) with the npm package `hyparquet`, which
 * is downloaded when the first Parquet file is read. It runs in a worker with limited memory and time and decodes one
 * row group at a time. Only the bytes of the requested columns are read.
 */
import { DataError } from "../errors.ts";
import { shown } from "../files/shown.ts";
import { type Ask, BoundedWorker, type Serve } from "./bounded_worker.ts";
import { DataFile } from "./pieces.ts";
import type { Row } from "./rows.ts";

interface Request {
  /** Length of the file. A request with `size` opens the file. */
  readonly size?: number;
  /**
   * Number of a row group. A request with `group` decodes the group; a request with neither `size` nor `group` asks for
   * more rows of the group decoded last.
   */
  readonly group?: number;
  /** Columns to decode. Default: all. */
  readonly columns?: readonly string[];
}
interface Reply {
  /** Names of all columns. Sent, like `groups`, when a file is opened. */
  readonly names?: readonly string[];
  /** For each row group, the number of rows and the uncompressed size of its columns in bytes. */
  readonly groups?: readonly { readonly rows: number; readonly bytes: number }[];
  /** Up to 500 rows of a group. */
  readonly rows?: readonly Record<string, unknown>[];
  /** Whether the group has more rows. */
  readonly more?: boolean;
}

/** The maximum uncompressed size of a group's columns, in bytes; the maximum heap of the worker, in MB. */
const MOST_BYTES = 2 ** 30, MEGABYTES = 4096;

/** The part of hyparquet's metadata that is used here. */
interface Column {
  readonly meta_data?: {
    readonly path_in_schema: string[];
    readonly codec?: string;
    readonly total_uncompressed_size: bigint;
    readonly total_compressed_size: bigint;
    readonly num_values: bigint;
  };
}
interface Metadata {
  readonly schema: readonly { readonly name: string }[];
  readonly row_groups: readonly { readonly columns: readonly Column[]; readonly num_rows: bigint }[];
}

/**
 * The worker's code. It is sent to the worker as source text, so it must not use anything defined outside this
 * function.
 */
const serve: Serve<Request, Reply> = (hyparquet) => {
  const zlib = process.getBuiltinModule("node:zlib"), utf8 = new TextDecoder("utf-8", { fatal: true }), MOST = 2 ** 30;
  let size = 0, metadata: Metadata, waiting: Record<string, unknown>[] = [], place = 0, taken = 0;

  const fileOf = (ask: Ask) => ({
    byteLength: size,
    slice: async (start: number, end = size) => await ask([start, end]) as ArrayBuffer,
  });
  /** Checks the size of a page before it is unpacked: the pages of a group must not exceed 2 GiB together. */
  const room = (bytes: number) => {
    taken += bytes;
    if (!(bytes >= 0 && taken <= 2 * MOST)) throw new Error(`a page of ${bytes} bytes`);
    return bytes;
  };
  const unpack =
    (name: "gunzipSync" | "brotliDecompressSync" | "zstdDecompressSync") => (input: Uint8Array, length: number) =>
      new Uint8Array(zlib[name](input, { maxOutputLength: Math.max(1, room(length)) }));
  const compressors: Record<string, (input: Uint8Array, length: number) => Uint8Array> = {
    SNAPPY(input, length) {
      const output = new Uint8Array(room(length));
      hyparquet.snappyUncompress(input, output);
      return output;
    },
    GZIP: unpack("gunzipSync"),
    BROTLI: unpack("brotliDecompressSync"),
    ZSTD: unpack("zstdDecompressSync"),
  };
  const isSize = (n: unknown) => typeof n === "bigint" && n >= 0n && n <= 2n ** 53n;
  const columnsOf = (group: number, names?: readonly string[]) =>
    metadata.row_groups[group].columns.filter(({ meta_data }) =>
      !names || names.includes(meta_data!.path_in_schema[0])
    );

  const bytesOf = (columns: readonly Column[]) =>
    columns.reduce((sum, { meta_data }) => sum + Number(meta_data!.total_uncompressed_size), 0);

  async function open(ask: Ask): Promise<Reply> {
    metadata = await hyparquet.parquetMetadataAsync(fileOf(ask), { geoparquet: false });
    const names: string[] = hyparquet.parquetSchema(metadata).children.map((
      { element }: { element: { name: string } },
    ) => element.name);
    for (const { columns, num_rows } of metadata.row_groups) {
      if (!isSize(num_rows)) throw new Error(`a group has ${num_rows} rows`);
      for (const { meta_data: of } of columns) {
        if (!of) throw new Error("encrypted columns are not read");
        const sizes = [of.total_compressed_size, of.total_uncompressed_size, of.num_values];
        if (!sizes.every(isSize)) throw new Error(`a column's sizes are ${sizes.join(", ")}`);
        if (of.total_compressed_size > size) throw new Error("a column is larger than the file");
      }
    }
    return {
      names,
      groups: metadata.row_groups.map(({ num_rows, columns }) => ({ rows: Number(num_rows), bytes: bytesOf(columns) })),
    };
  }

  /** Converts a value to JSON's types: bigints to numbers, times to texts, and binary values to their length. */
  const plain = (value: unknown): unknown => {
    if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
    if (value instanceof Uint8Array) return { bytes: value.length }; // no format of examples uses binary columns
    if (ArrayBuffer.isView(value)) return Array.from(value as Int32Array, plain);
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, plain(part)]));
  };

  async function decode(ask: Ask, group: number, columns?: readonly string[]): Promise<Reply> {
    const begin = metadata.row_groups.slice(0, group).reduce((sum, { num_rows }) => sum + Number(num_rows), 0);
    const rows = Number(metadata.row_groups[group].num_rows),
      codecs = columnsOf(group, columns).map((column) => column.meta_data!.codec);
    const unread = codecs.find((codec) => codec !== "UNCOMPRESSED" && !compressors[codec ?? ""]);
    if (unread !== undefined || codecs.includes(undefined)) {
      throw new Error(
        `compressed with ${unread ?? "an unknown method"}; supported are UNCOMPRESSED, ${
          Object.keys(compressors).join(", ")
        }`,
      );
    }
    const bytes = bytesOf(columnsOf(group, columns));
    if (bytes > MOST) {
      throw new Error(
        `a group of ${rows} rows takes ${bytes} bytes, more than the limit of ${MOST}; use smaller row groups`,
      );
    }
    taken = 0;
    waiting = await hyparquet.parquetReadObjects({
      file: fileOf(ask),
      metadata,
      columns,
      compressors,
      rowStart: begin,
      rowEnd: begin + rows,
      geoparquet: false,
      parsers: { stringFromBytes: (bytes?: Uint8Array) => bytes && utf8.decode(bytes) },
    });
    if (waiting.length !== rows) throw new Error(`expected ${rows} rows, found ${waiting.length}`);
    place = 0;
    return more();
  }

  function more(): Reply {
    const rows = waiting.slice(place, place += 500).map(plain) as Record<string, unknown>[];
    if (place >= waiting.length) waiting = [];
    return { rows, more: waiting.length > 0 };
  }

  return (request, ask) => {
    if (request.size !== undefined) {
      size = request.size;
      return open(ask);
    }
    return request.group === undefined ? more() : decode(ask, request.group, request.columns);
  };
};

/** A worker that reads Parquet files, one at a time. */
export type ParquetWorker = BoundedWorker<Request, Reply>;

export function parquetWorker(megabytes = MEGABYTES): ParquetWorker {
  return new BoundedWorker("hyparquet", serve, { megabytes });
}

/** Options of {@linkcode readParquet}. */
export interface ParquetOptions {
  /** Names of the columns to read. Default: all. */ readonly columns?: ReadonlySet<string>;
  /** A worker to reuse for several files. Default: a new worker for this file. */ readonly worker?: ParquetWorker;
  /** Time limit for opening the file, and for decoding each row group. Default: 60, and more for large groups. */
  readonly seconds?: number;
}

/**
 * Reads the rows of a Parquet file.
 * @throws {DataError} when the file is damaged or truncated, changes while it is read, or uses a compression that is
 * not supported
 */
export async function* readParquet(path: string, options: ParquetOptions = {}): AsyncGenerator<Row> {
  using own = options.worker ? undefined : parquetWorker();
  using file = await DataFile.open(path);
  const worker = options.worker ?? own!, { size } = file;
  const isMagic = async (at: number) => new TextDecoder().decode(await file.slice(at, at + 4)) === "PAR1";
  if (size < 12 || !await isMagic(0) || !await isMagic(size - 4)) {
    throw new DataError(`${path} is not a Parquet file, or is cut off: it does not begin and end with PAR1`);
  }
  const answer = async (range: unknown) => {
    const [start, end] = range as [number, number];
    if (
      !(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= size &&
        end - start <= MOST_BYTES)
    ) {
      throw new Error(`it refers to bytes ${start} to ${end}, but has only ${size}`);
    }
    return (await file.slice(start, end)).buffer;
  };
  const ask = async (request: Request, seconds: number): Promise<Reply> => {
    try {
      return await worker.ask(request, { seconds, answer });
    } catch (error) {
      if (error instanceof DataError) throw error;
      const { message } = error as Error,
        cannot = /^(compressed|encrypted|a group of|takes more)/.test(message);
      throw new DataError(`${path} ${cannot ? "cannot be read" : "is damaged"}: ${shown(message)}`);
    }
  };
  const { names, groups } = await ask({ size }, options.seconds ?? 60), wanted = options.columns;
  const found = wanted ? names!.filter((name) => wanted.has(name)) : undefined;
  // If the file has none of the wanted columns, its first column is read: the caller needs the number of rows.
  const columns = found?.length === 0 ? names!.slice(0, 1) : found;
  let row = 0;
  for (const [group, { bytes }] of groups!.entries()) {
    const seconds = options.seconds ?? 60 + bytes / 2 ** 22;
    for (let reply = await ask({ group, columns }, seconds);; reply = await ask({}, seconds)) {
      for (const values of reply.rows!) yield { where: `${path}, row ${++row}`, columns: values, names };
      if (!reply.more) break;
    }
  }
  file.checkUnchanged();
}
