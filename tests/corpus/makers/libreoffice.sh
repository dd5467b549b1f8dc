# Files of LibreOffice, in the folder that the script runs in. Its argument is a folder with a letter, tables and slides.
set -e
as() {  # as FORMAT SOURCE NAME
    soffice --headless "-env:UserInstallation=file://$PWD/profile" --convert-to "$1" --outdir converted "$2" >/dev/null 2>&1
    mv "converted/$(basename "${2%.*}").${1%%:*}" "$3"
}

letter=$1/python-docx-picture.docx table=$1/xlsxwriter-picture.xlsx rows=$1/xlsxwriter.xlsx slides=$1/python-pptx-picture.pptx
for format in doc dot odt ott rtf pdf txt html epub docm dotx docx:"MS Word 2007 XML"; do as "$format" "$letter" "libreoffice.${format%%:*}"; done
for format in xls ods csv xlsm xltx pdf xlsx:"Calc MS Excel 2007 XML"; do as "$format" "$rows" "libreoffice-calc.${format%%:*}"; done
as xls "$table" libreoffice-calc-picture.xls
for format in ppt odp pdf png jpg pptm ppsx potx pptx:"Impress MS PowerPoint 2007 XML"; do as "$format" "$slides" "libreoffice-impress.${format%%:*}"; done
cp libreoffice.doc libreoffice-doc-nameless
cp libreoffice.doc libreoffice-doc-as-xls.xls
cp libreoffice.doc libreoffice-doc-as-docx.docx
cp libreoffice-calc.xls libreoffice-xls-nameless
cp libreoffice-calc.xls libreoffice-xls-as-doc.doc
cp libreoffice-impress.ppt libreoffice-ppt-nameless
rm -rf profile converted
