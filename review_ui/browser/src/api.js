// @ts-check
// Calls the operators of @vouch/review; every answer brings the session up to date.

/** @typedef {import("./types.js").OperatorResult} OperatorResult */

export const PLUGIN = "@vouch/review";

/**
 * @param {import("./session.js").Session} session
 * @param {() => string} datasetName
 * @returns {import("./types.js").Call} Throws an Error with one line for the reviewer.
 */
export function operators(session, datasetName) {
  let sent = 0;
  return async (name, parameters = {}) => {
    const number = ++sent;
    const answer = await fetch("/operators/execute", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ operator_uri: `${PLUGIN}/${name}`, dataset_name: datasetName(), params: parameters }),
    }).catch(() => null);
    if (!answer) throw new Error("the review's server does not answer; is `vouch review` still running?");
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) {
      throw new Error(body.error || body.detail || `the review's server refused this (${answer.status})`);
    }
    /** @type {OperatorResult} */
    const result = body.result || {};
    session.update(result, number);
    if (body.error_message || body.error || result.error) {
      throw new Error(result.error || body.error_message || "this failed; the log of the review says why");
    }
    return result;
  };
}
