// What crosses borders: what the server's operators answer, and the parts of FiftyOne's App that are called by name.

/** One item of the review session (review_ui/session/session.py). */
export interface ItemSummary {
  /** Id of the FiftyOne sample that shows it. */
  sample: string;
  item: string;
  /** Id of the label in question; null for a question about a whole image. */
  label: string | null;
  kind: "label" | "possible_miss" | "image";
  /** Of the image. */
  key: string;
  class_name: string | null;
  ask: string;
  width: number;
  height: number;
  box: [number, number, number, number] | null;
  /** Whether the label has a mask, without which its box can be moved. */
  masked: boolean;
}

/** What an operator answers: the items of the session, and what the operator adds. */
export interface OperatorResult {
  items?: ItemSummary[];
  error?: string;
  classes?: string[];
  queue?: string;
  lease_s?: number;
  open?: number;
  answered_by_me?: number;
  /** Items that other reviewers hold. */
  elsewhere?: number;
  minutes_left?: number;
  /** What the answers certify so far, in one line. */
  certified?: string | null;
  taken?: number;
  returned?: number;
  lost?: number;
  item?: string;
  /** What the models say of it. */
  hint?: string;
  answer?: string;
  grid?: string[];
  class_name?: string | null;
  answered?: number;
  kept?: Record<string, string>;
}

export type Parameters = Record<string, unknown>;

/** Calls an operator of @vouch/review by its name. */
export type Call = (name: string, parameters?: Parameters) => Promise<OperatorResult>;

/** Shows the reviewer a message; `wrong`: that something failed. */
export type Notify = (message: string, wrong?: boolean) => void;

/** An image that is asked for: how far it is, and a promise of how it ends. */
export interface Picture {
  state: "loading" | "shown" | "broken";
  done: Promise<"shown" | "broken">;
}

interface AppOperator {
  new (): object;
}

declare global {
  interface Window {
    /** FiftyOne's operators. */
    __foo__: {
      executeOperator(name: string, parameters?: Parameters): void;
      registerOperator(operator: AppOperator, plugin: string): void;
      Operator: AppOperator;
      OperatorConfig: new (options: Parameters) => object;
    };
    /** FiftyOne's state. */
    __fos__: {
      jotaiStore: { get(atom: unknown): unknown; set(atom: unknown, value: unknown): void };
      modalMode: unknown;
    };
  }
}
