"""Style and script of the page."""

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
.skqfair-audit{--ink:#1b1d21;--soft:#4d535c;--paper:#fff;--line:#c9cdd3;--head:#eef0f3;
--m0:#0072b2;--m1:#b84a00;--m2:#00795a;--m3:#a3487a;--m4:#2b6f99;--m5:#8a6100;--m6:#1b1d21;
box-sizing:border-box;max-width:62rem;margin:0 auto;padding:1.5rem 1rem 3rem;background:var(--paper);
color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
@media screen and (prefers-color-scheme:dark){html:has(>body>.skqfair-audit){background:#14161a}
.skqfair-audit{--ink:#e8eaee;--soft:#b4bac4;--paper:#14161a;--line:#464c56;--head:#22262d;
--m0:#5cb8f0;--m1:#f58b4c;--m2:#3fcf9f;--m3:#e59cc4;--m4:#9ad4f5;--m5:#f0b840;--m6:#e8eaee}}
.skqfair-audit h1{font-size:1.7rem;line-height:1.2;margin:0 0 .5rem}
.skqfair-audit h2{font-size:1.2rem;margin:2rem 0 .4rem}
.skqfair-audit .lead{color:var(--soft);font-size:1.1rem;margin:0}
.skqfair-audit li{margin:.35rem 0}
.skqfair-audit figure{margin:1rem 0}
.skqfair-audit figcaption{font-weight:600}
.skqfair-audit .keys{margin:.2rem 0;font-size:.9rem}
.skqfair-audit .keys span{margin-right:1rem;white-space:nowrap}
.skqfair-audit .scroll{overflow-x:auto}
.skqfair-audit .scroll svg{display:block;width:100%;min-width:34rem;max-width:45rem;height:auto}
.skqfair-audit svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
.skqfair-audit svg .grid,.skqfair-audit svg .rule{stroke:var(--line);stroke-width:.7}
.skqfair-audit svg .zero{stroke:var(--ink);stroke-width:1.2}
.skqfair-audit svg g line{stroke:currentColor;stroke-width:1.8}
.skqfair-audit svg g{fill:currentColor}
.skqfair-audit .m0{color:var(--m0)}.skqfair-audit .m1{color:var(--m1)}.skqfair-audit .m2{color:var(--m2)}
.skqfair-audit .m3{color:var(--m3)}.skqfair-audit .m4{color:var(--m4)}.skqfair-audit .m5{color:var(--m5)}
.skqfair-audit .m6{color:var(--m6)}
.skqfair-audit .wide{overflow-x:auto;border:1px solid var(--line);border-radius:4px}
.skqfair-audit table{border-collapse:collapse;font-size:.85rem;width:100%;
font-variant-numeric:tabular-nums}
.skqfair-audit th{background:var(--head);text-align:left;vertical-align:bottom}
.skqfair-audit th button{all:unset;cursor:pointer;padding:.35rem .5rem;font-weight:600;display:block}
.skqfair-audit th button:focus-visible,.skqfair-audit .wide:focus-visible,
.skqfair-audit .scroll:focus-visible{outline:3px solid var(--m0);
outline-offset:-3px}
.skqfair-audit th[aria-sort=ascending] button::after{content:" \\25B2"}
.skqfair-audit th[aria-sort=descending] button::after{content:" \\25BC"}
.skqfair-audit td{padding:.3rem .5rem;border-top:1px solid var(--line);text-align:left;
color:var(--ink);background:var(--paper)}
.skqfair-audit td{white-space:nowrap}
.skqfair-audit dt{font-weight:600}
.skqfair-audit dd{margin:0 0 .5rem;overflow-wrap:anywhere}
@media print{.skqfair-audit{max-width:none;padding:0;font-size:10pt}
.skqfair-audit .wide{overflow:visible;border:0}.skqfair-audit .scroll svg{min-width:0}
.skqfair-audit table{font-size:6.5pt;width:100%}.skqfair-audit .keys span{white-space:normal}
.skqfair-audit td,.skqfair-audit th,.skqfair-audit th button{white-space:normal;overflow-wrap:anywhere}
.skqfair-audit td,.skqfair-audit th button{padding:.1rem .2rem}
.skqfair-audit tr,.skqfair-audit figure{break-inside:avoid}
.skqfair-audit h2{break-after:avoid}.skqfair-audit thead{display:table-header-group}}
""".strip()

SCRIPT = """
document.querySelectorAll(".skqfair-audit th button").forEach(button => {
  button.onclick = () => {
    const head = button.parentElement, column = head.cellIndex, table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "")
      : (up ? 1 : -1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    const rows = [...table.tBodies[0].rows].sort((r, s) => compare(key(r), key(s)));
    table.tBodies[0].append(...rows);
    table.querySelectorAll("th").forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  };
});
""".strip()
